package mirror

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Version is the version of a containerd. The zero value is an unknown version.
type Version struct {
	Major, Minor int
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// AtLeast reports whether the version is known, and major.minor or later.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

var versionForm = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})([^\d].*)?$`)

// ParseVersion parses the beginning of a version: 2.1.4, v1.7.24, 1.6.20~ds1, 2.2.
func ParseVersion(s string) (Version, error) {
	m := versionForm.FindStringSubmatch(s)
	if m == nil {
		return Version{}, fmt.Errorf("%q is not a version of containerd, such as 2.1.4", s)
	}
	major, _ := strconv.Atoi(m[1]) // the expression matched digits
	minor, _ := strconv.Atoi(m[2])
	return Version{major, minor}, nil
}

// askTimeout bounds a question for the version, which stays on this machine.
const askTimeout = 5 * time.Second

// AskVersion asks the containerd at a Unix socket for its version. It calls the gRPC
// method containerd.services.version.v1.Version/Version with an empty request, which
// net/http can do.
func AskVersion(ctx context.Context, socket string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols: &protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	text, err := callVersion(ctx, transport)
	if err != nil {
		return Version{}, fmt.Errorf("ask containerd at %s for its version: %w", socket, err)
	}
	return ParseVersion(text)
}

// grpcPrefix is the length of the prefix of a message on the wire: a flag and a size (gRPC over HTTP/2, "Length-Prefixed-Message").
const grpcPrefix = 5

func callVersion(ctx context.Context, transport http.RoundTripper) (string, error) {
	question := bytes.NewReader(make([]byte, grpcPrefix)) // an empty message
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://containerd/containerd.services.version.v1.Version/Version", question)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if status := resp.Trailer.Get("Grpc-Status"); len(answer) < grpcPrefix {
		return "", fmt.Errorf("it answered %s with status %q and no message", resp.Status, status)
	}
	return firstString(answer[grpcPrefix:])
}

// firstString returns field 1 of a message: the version in a VersionResponse.
func firstString(message []byte) (string, error) {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return "", protowire.ParseError(n)
		}
		message = message[n:]
		if num == 1 && typ == protowire.BytesType {
			text, n := protowire.ConsumeBytes(message)
			return string(text), protowire.ParseError(min(n, 0))
		}
		n = protowire.ConsumeFieldValue(num, typ, message)
		if n < 0 {
			return "", protowire.ParseError(n)
		}
		message = message[n:]
	}
	return "", fmt.Errorf("its answer has no version")
}
