// These tests are inside the package: whoever runs them has neither a name that leads to
// a metadata address nor a mute name server.
package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/probe"
)

func TestAdviceIsAboutTheConnectionThatFailed(t *testing.T) {
	refused := fmt.Errorf("dial: %w", guard.Refuse("a connection", &url.URL{Scheme: "http", Host: "169.254.169.254"}))
	lost := errors.New("i/o timeout")
	for _, test := range []struct {
		name   string
		c      probe.Connection
		want   string
		unlike string
	}{
		{"registry", probe.Connection{Stage: probe.StageTCP, Err: refused}, "may not lead", "Packets"},
		{"storage", probe.Connection{Stage: probe.StageTCP, Err: refused}, "may not lead", "Packets"},
		{"registry", probe.Connection{Stage: probe.StageTCP, Err: lost}, "Packets get lost on the way:", "host of layers"},
		{"storage", probe.Connection{Stage: probe.StageTCP, Err: lost}, "gateway endpoint of S3", "endpoint in the configuration"},
		{"storage", probe.Connection{Stage: probe.StageTCP, Err: syscall.ECONNREFUSED}, "the registry sends Larder", "configuration"},
		{"storage", probe.Connection{Stage: probe.StageTLS, Err: x509.HostnameError{Certificate: &x509.Certificate{}}}, "what the name resolves here", "configuration"},
		{"registry", probe.Connection{Stage: probe.StageDNS, Err: lost, Mute: []string{"10.0.0.2:53"}}, "no answer from the name server 10.0.0.2:53", ""},
		{"registry", probe.Connection{Stage: probe.StageDNS, Err: &net.DNSError{IsNotFound: true}, Mute: []string{"10.0.0.2:53"}}, "No such name", ""},
		{"registry", probe.Connection{Stage: probe.StageAnswer, Err: lost}, "accepts connections and does not answer", "TLS"},
	} {
		got := adviceOnConnection(test.name, test.c)
		if !strings.Contains(got, test.want) || test.unlike != "" && strings.Contains(got, test.unlike) {
			t.Errorf("%s, %v at %s: %q, want %q and not %q", test.name, test.c.Err, test.c.Stage, got, test.want, test.unlike)
		}
	}
}

func TestMuteNameServerIsAWarning(t *testing.T) {
	e := newExamination(t.Context(), 1, nil)
	connect(e, "registry", Failed, func(context.Context) probe.Connection {
		return probe.Connection{Addresses: []string{"192.0.2.1"}, Mute: []string{"10.0.0.2:53"}}
	})
	if s := e.steps[0]; s.Name != "registry-dns" || s.Status != Warning || !strings.Contains(s.Detail, "10.0.0.2:53") || s.Advice == "" {
		t.Errorf("got %+v", s)
	}
}
