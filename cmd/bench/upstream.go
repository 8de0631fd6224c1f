package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// upstreamCommand is the fake ECR as a process of its own. It ends when its standard input does.
type upstreamCommand struct{}

// upstreamHello is the one line that it writes when it is ready.
type upstreamHello struct {
	Host     string // the registry's name, as images carry it
	Endpoint string // URL of the registry and the ECR API
	Storage  string // URL of what it redirects to
	Control  string // URL of what the bench asks of the fake itself
}

// shape is how good the way to the upstream is.
type shape struct {
	BytesPerSecond int64 // of each connection; 0 for no limit
	Latency        time.Duration
}

// sent is what the upstream did since it was last asked.
type sent struct {
	Bytes    int64 // of blobs
	Requests int   // of all kinds
}

// Run is the command.
func (upstreamCommand) Run(p *invocation) (err error) {
	fake, err := ecrtest.Start(ecrtest.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fake.Close()) }()
	listener, err := new(net.ListenConfig).Listen(p.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: controlHandler(fake.Server), ReadHeaderTimeout: readyTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = json.NewEncoder(p.stdout).Encode(upstreamHello{
		Host:     fake.Host(),
		Endpoint: fake.Endpoint,
		Storage:  fake.StorageURL,
		Control:  "http://" + listener.Addr().String(),
	})
	if err == nil {
		_, err = io.Copy(io.Discard, p.stdin)
	}
	err = errors.Join(err, server.Close())
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

func controlHandler(fake *ecrtest.Server) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(body *json.Decoder) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := answer(json.NewDecoder(r.Body))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_ = json.NewEncoder(w).Encode(v) // the bench misses what does not arrive
		})
	}
	handle("POST /images", func(body *json.Decoder) (any, error) {
		var spec imageSpec
		if err := body.Decode(&spec); err != nil {
			return nil, err
		}
		return spec.add(fake)
	})
	handle("POST /shape", func(body *json.Decoder) (any, error) {
		var s shape
		err := body.Decode(&s)
		if err == nil {
			fake.SetBandwidth(s.BytesPerSecond)
			fake.SetLatency(s.Latency)
		}
		return struct{}{}, err
	})
	handle("POST /sent", func(*json.Decoder) (any, error) {
		stats := fake.Stats()
		fake.ResetStats()
		done := sent{Bytes: stats.Bytes()}
		for _, n := range stats.Requests {
			done.Requests += n
		}
		return done, nil
	})
	return mux
}

// upstream is that process, seen from the bench.
type upstream struct {
	upstreamHello
	proc  *process
	stdin io.Closer
	http  *http.Client
	token string // what clients send as Authorization
}

// startUpstream starts this program again, as the fake.
func startUpstream(ctx context.Context, dir string) (_ *upstream, err error) {
	cmd, err := ourselves(ctx, "upstream")
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// A pipe of our own, since Wait would close the command's under a reader.
	hello, said := io.Pipe()
	cmd.Stdout = said
	u := &upstream{stdin: stdin, http: &http.Client{Transport: &http.Transport{}}}
	if u.proc, err = startProcess("the fake ECR", dir, cmd); err != nil {
		return nil, err
	}
	go func() {
		<-u.proc.exited
		_ = said.Close() // it returns nil
	}()
	defer func() {
		if err != nil {
			err = errors.Join(err, u.close())
		}
	}()
	if err := json.NewDecoder(hello).Decode(&u.upstreamHello); err != nil {
		return nil, fmt.Errorf("the fake ECR said nothing: %w", err)
	}
	u.token, err = u.authorization(ctx)
	return u, err
}

func (u *upstream) close() error {
	u.http.CloseIdleConnections()
	err := u.stdin.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil // the process has ended before, as it does when the bench is interrupted
	}
	select {
	case <-u.proc.exited:
	case <-time.After(stopTimeout):
		err = errors.Join(err, u.proc.stop())
	}
	return err
}

// authorization takes a token of the ECR API.
func (u *upstream) authorization(ctx context.Context) (string, error) {
	out, err := ecr.New(ecr.Options{
		BaseEndpoint: aws.String(u.Endpoint),
		Region:       region,
		Credentials:  credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		HTTPClient:   u.http,
	}).GetAuthorizationToken(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("take a token: %w", err)
	}
	return "Basic " + *out.AuthorizationData[0].AuthorizationToken, nil
}

// What the fake knows its user by, unless told otherwise.
const (
	accessKey = "AKIDLARDERTEST"
	secretKey = "secret"
	region    = "us-east-1"
)

// control asks the process for something.
func (u *upstream) control(ctx context.Context, path string, in, out any) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(json.NewEncoder(w).Encode(in)) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.Control+path, r)
	if err != nil {
		return err
	}
	return u.do(req, out)
}

func (u *upstream) do(req *http.Request, out any) error {
	resp, err := u.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s %s: %s %s", req.Method, req.URL.Path, resp.Status, said)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// addImage gives the upstream an image.
func (u *upstream) addImage(ctx context.Context, spec imageSpec) (*image, error) {
	img := &image{imageSpec: spec}
	if err := u.control(ctx, "/images", spec, &img.added); err != nil {
		return nil, fmt.Errorf("add the image %s: %w", spec.Repository, err)
	}
	return img, nil
}

// reshape sets how good the way to it is from now on.
func (u *upstream) reshape(ctx context.Context, s shape) error {
	return u.control(ctx, "/shape", s, &struct{}{})
}

// sent returns what it did since the last call.
func (u *upstream) sent(ctx context.Context) (s sent, err error) {
	return s, u.control(ctx, "/sent", struct{}{}, &s)
}
