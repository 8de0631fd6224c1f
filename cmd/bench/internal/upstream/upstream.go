package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/larder-registry/larder/cmd/bench/internal/process"
)

// Command is the argument with which Start runs this program again. The program must then call Serve.
const Command = "upstream"

// The fake's only user and region.
const (
	AccessKey = "AKIDLARDERTEST"
	SecretKey = "secret"
	Region    = "us-east-1"
)

// An Upstream is the process of the fake ECR, seen from the bench. It is safe for concurrent use.
type Upstream struct {
	addresses
	proc  *process.Process
	stdin io.Closer
	http  *http.Client
	token string
	trust *x509.CertPool // nil without TLS
	ca    string         // file
}

// Start runs this program again as the fake ECR, with its log in dir. A secure one speaks TLS.
func Start(ctx context.Context, dir string, secure bool) (_ *Upstream, err error) {
	name, args := "the fake ECR", []string{Command}
	if secure {
		name, args = "the fake ECR over TLS", append(args, "--tls")
	}
	cmd, err := process.Self(ctx, args...)
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Not cmd.StdoutPipe: Wait would close it while it is read.
	stdout, w := io.Pipe()
	cmd.Stdout = w
	u := &Upstream{stdin: stdin, http: &http.Client{Transport: &http.Transport{}}}
	if u.proc, err = process.Start(name, dir, cmd); err != nil {
		return nil, err
	}
	go func() {
		<-u.proc.Exited()
		_ = w.Close() // always nil
	}()
	defer func() {
		if err != nil {
			err = errors.Join(err, u.Close())
		}
	}()
	if err := json.NewDecoder(stdout).Decode(&u.addresses); err != nil {
		return nil, fmt.Errorf("read the addresses of the fake ECR: %w", err)
	}
	if secure {
		if err := u.trustCA(dir); err != nil {
			return nil, err
		}
	}
	u.token, err = u.getToken(ctx)
	return u, err
}

// trustCA puts the CA where the servers find it.
func (u *Upstream) trustCA(dir string) error {
	u.trust = x509.NewCertPool()
	if !u.trust.AppendCertsFromPEM(u.CA) {
		return errors.New("the fake ECR told no CA")
	}
	u.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: u.trust}}
	u.ca = filepath.Join(dir, "ca.pem")
	return os.WriteFile(u.ca, u.CA, 0o644) //nolint:gosec // servers may run as other users
}

// Trust returns the CA that clients have to trust, or nil if the upstream does not speak TLS.
func (u *Upstream) Trust() *x509.CertPool { return u.trust }

// CAFile returns the file with that CA in PEM, or nothing.
func (u *Upstream) CAFile() string { return u.ca }

// Environment returns what programs in Go need to trust the upstream.
func (u *Upstream) Environment() []string {
	if u.ca == "" {
		return nil
	}
	return []string{"SSL_CERT_FILE=" + u.ca}
}

// stopTimeout is how long the process may take to end after its standard input.
const stopTimeout = 10 * time.Second

// Close ends the process.
func (u *Upstream) Close() error {
	u.http.CloseIdleConnections()
	err := u.stdin.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil // the process has ended already, as it does when the bench is interrupted
	}
	select {
	case <-u.proc.Exited():
	case <-time.After(stopTimeout):
		err = errors.Join(err, u.proc.Stop())
	}
	return err
}

// Authorization is the header with which clients ask it.
func (u *Upstream) Authorization() string { return "Basic " + u.token }

// Login returns the user and the password that Authorization contains.
func (u *Upstream) Login() (user, password string, err error) {
	raw, err := base64.StdEncoding.DecodeString(u.token)
	if err != nil {
		return "", "", fmt.Errorf("decode the token: %w", err)
	}
	user, password, _ = strings.Cut(string(raw), ":")
	return user, password, nil
}

// AddImage makes an image in the upstream.
func (u *Upstream) AddImage(ctx context.Context, spec ImageSpec) (*Image, error) {
	img := &Image{ImageSpec: spec}
	if err := u.control(ctx, imagesPath, spec, &img.added); err != nil {
		return nil, fmt.Errorf("add the image %s: %w", spec.Repository, err)
	}
	return img, nil
}

// SetLink sets the bandwidth and latency of connections from now on.
func (u *Upstream) SetLink(ctx context.Context, link Link) error {
	return u.control(ctx, linkPath, link, &struct{}{})
}

// TakeSent returns what the upstream has sent since the last call.
func (u *Upstream) TakeSent(ctx context.Context) (sent Sent, err error) {
	return sent, u.control(ctx, sentPath, struct{}{}, &sent)
}

// getToken gets a token from the ECR API.
func (u *Upstream) getToken(ctx context.Context) (string, error) {
	out, err := ecr.New(ecr.Options{
		BaseEndpoint: aws.String(u.Endpoint),
		Region:       Region,
		Credentials:  credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
		HTTPClient:   u.http,
	}).GetAuthorizationToken(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("get a token: %w", err)
	}
	return *out.AuthorizationData[0].AuthorizationToken, nil
}

// control calls the control interface.
func (u *Upstream) control(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.Control+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		message, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s %s: %s %s", req.Method, req.URL.Path, resp.Status, message)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
