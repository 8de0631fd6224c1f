package mirror

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles"
)

// answerTimeout is far more than Larder needs for /v2/, and less than a person would
// wait.
const answerTimeout = 3 * time.Second

// checkAnswer asks Larder as the node's runtime does: with the same authority, certificate and
// password.
func checkAnswer(ctx context.Context, m Mirror) Finding {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	trust, err := m.TLS.config()
	if err != nil {
		return Finding{What: err.Error(), Advice: "fix the file, or name another one with --ca, --client-cert and --client-key"}
	}
	status, challenge, err := ping(ctx, m, trust)
	switch {
	case err != nil && m.adviceOnTLS(err) != "":
		return Finding{What: fmt.Sprintf("%s is not trusted, or does not trust this node: %v", m.URL, err), Advice: m.adviceOnTLS(err)}
	case err != nil:
		return Finding{What: fmt.Sprintf("Larder does not answer: %v", err),
			Advice: "start larder serve, or give its address with --url; until then " + m.otherwise()}
	case status == http.StatusUnauthorized && m.Authorization == "" && strings.HasPrefix(challenge, "Basic"):
		return Finding{What: m.URL + " wants a user name and a password", Advice: "write them into a file as <user>:<password>, and give it with --credentials; until then " + m.otherwise()}
	case status == http.StatusUnauthorized && m.Authorization != "":
		return Finding{What: m.URL + " refuses the user name and password of --credentials", Advice: "compare them with the file of auth.htpasswd; until then " + m.otherwise()}
	case status == http.StatusUnauthorized: // by tokens, which runtimes get by themselves
	case status == http.StatusBadRequest && strings.HasPrefix(m.URL, "http://"):
		return Finding{What: m.URL + " answers 400 to plain HTTP", Advice: "if Larder has tls there, let its address begin with https:// in --url"}
	case status != http.StatusOK:
		return Finding{What: fmt.Sprintf("%s/v2/ answers %d, not 200", m.URL, status), Advice: "is it Larder that listens there?"}
	}
	return good("Larder answers at %s", m.URL)
}

// adviceOnTLS says what to do about an error of TLS; "" if it is another one.
func (m Mirror) adviceOnTLS(err error) string {
	var untrusted x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &untrusted) && m.TLS.CA == "":
		return "give the file of the certificate's authority with --ca, and run larder mirror with it"
	case errors.As(err, &untrusted):
		return fmt.Sprintf("the certificate is not of the authority in %s: give the right one with --ca", m.TLS.CA)
	case errors.As(err, &name):
		return fmt.Sprintf("the certificate is for %s: give one of these with --url, or Larder a certificate for this one too, as a Subject Alternative Name",
			tlsfiles.NamesOf(name.Certificate))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "replace the files of tls in Larder's configuration, or set the clock of this machine"
	case errors.As(err, &invalid):
		return "replace the certificate of tls in Larder's configuration"
	case strings.Contains(err.Error(), "tls: certificate required"):
		return "Larder has tls.client_ca: give a certificate of that authority with --client-cert and --client-key"
	case strings.Contains(err.Error(), "remote error: tls: "):
		return "Larder refuses the certificate of --client-cert: it must be of the authority in tls.client_ca, and in its time"
	case errors.As(err, new(tls.RecordHeaderError)), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "Larder has no tls there: let its address begin with http:// in --url, or configure tls"
	}
	return ""
}

// otherwise is what a node does without Larder.
func (m Mirror) otherwise() string {
	if m.Only {
		return "the node pulls nothing"
	}
	return "a node without --only pulls from the registries themselves"
}

// ping returns the status of GET /v2/, and the challenge if that is 401.
func ping(ctx context.Context, m Mirror, trust *tls.Config) (status int, challenge string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL+"/v2/", nil)
	if err != nil {
		return 0, "", err
	}
	if m.Authorization != "" {
		req.Header.Set("Authorization", m.Authorization)
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: trust}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate"), resp.Body.Close()
}

// TLS are the files with which a node reaches Larder over HTTPS. They are absolute paths on the
// node; "" for none.
type TLS struct {
	// CA has the authority of Larder's certificate, if the node does not trust that anyway.
	CA string
	// ClientCert and ClientKey are the node's own certificate. Neither is set without the other.
	ClientCert, ClientKey string
}

// Check returns an error for files that do not fit together, or to the URL of the mirror.
func (t TLS) Check(at string) error {
	u, err := url.Parse(at)
	switch {
	case (t.ClientCert == "") != (t.ClientKey == ""):
		return errors.New("--client-cert and --client-key can be used together only")
	case t != TLS{} && (err != nil || u.Scheme != "https"):
		return errors.New("--ca and --client-cert are for a Larder with tls, whose address begins with https://")
	}
	return nil
}

// config reads the files.
func (t TLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read the authority of Larder's certificate: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", t.CA)
		}
	}
	if t.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(t.ClientCert, t.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("use the certificate in %s with the key in %s: %w", t.ClientCert, t.ClientKey, err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config, nil
}

// hostSettings returns the lines of a hosts.toml about them.
func (t TLS) hostSettings(indent string) (text string) {
	if t.CA != "" {
		text += fmt.Sprintf("%sca = %q\n", indent, t.CA)
	}
	if t.ClientCert != "" {
		text += fmt.Sprintf("%sclient = [[%q, %q]]\n", indent, t.ClientCert, t.ClientKey)
	}
	return text
}
