package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// flags is the command line.
type flags struct {
	Addr    string   `default:"127.0.0.1:5100" placeholder:"HOST:PORT" help:"Where the registry and the ECR API are (${default}). Blobs are redirected to storage, on a free port of the same host."`
	Images  []string `placeholder:"PATH" type:"path" sep:"none" help:"An OCI layout, a folder or an uncompressed tar; may be given several times. Without it, an image of random bytes is served, sample/app:1.0."`
	Account string   `default:"123456789012" help:"The account that owns the registry (${default})."`
	Region  string   `default:"us-east-1" help:"The region of the registry (${default})."`

	TokenLife time.Duration `default:"12h" placeholder:"DURATION" help:"How long a token is valid (${default})."`
	Latency   time.Duration `placeholder:"DURATION" help:"Wait this long before each answer."`
	Bandwidth size          `placeholder:"SIZE" help:"Limit each connection to storage to this many bytes per second, such as 10MB."`

	TLSCA string `name:"tls-ca" placeholder:"FILE" type:"path" help:"Speak TLS, with a certificate of a new CA that is written to this file."`

	BreakAfter    size `placeholder:"SIZE" help:"Break each answer of storage after this many bytes. A client that resumes makes progress."`
	ThrottleEvery int  `placeholder:"N" help:"Throttle every Nth request: 429 from the registry, ThrottlingException from the API, 503 from storage."`
}

// size is a number of bytes.
type size int64

// UnmarshalText reads a size such as 10MB, 64KiB or 1000.
func (s *size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n == 0 || n > 1<<62 {
		return fmt.Errorf("%q is not a size such as 10MB", text)
	}
	*s = size(n)
	return nil
}

// Validate checks the flags; kong calls it.
func (f flags) Validate() error {
	host, _, err := net.SplitHostPort(f.Addr)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("--addr: redirects need a host that clients can reach, not %q", f.Addr)
	}
	if f.ThrottleEvery < 0 {
		return errors.New("--throttle-every: must not be negative")
	}
	return nil
}

// serve serves until ctx ends.
func serve(ctx context.Context, opts flags, stdout io.Writer) (err error) {
	host, _, err := net.SplitHostPort(opts.Addr)
	if err != nil {
		return err
	}
	var lib library
	defer func() { err = errors.Join(err, lib.close()) }() // after fake.Close, when nothing reads it
	fake, err := ecrtest.StartAt(ecrtest.Options{
		Account:        opts.Account,
		Region:         opts.Region,
		TokenTTL:       opts.TokenLife,
		BytesPerSecond: int64(opts.Bandwidth),
		Latency:        opts.Latency,
		TLS:            opts.TLSCA != "",
	}, opts.Addr, net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fake.Close()) }()
	if opts.TLSCA != "" {
		if err := os.WriteFile(opts.TLSCA, fake.CA(), 0o644); err != nil { //nolint:gosec // a certificate is public
			return fmt.Errorf("writing the CA: %w", err)
		}
	}
	if opts.BreakAfter > 0 {
		defer fake.Inject(ecrtest.Fault{On: ecrtest.Storage, CutAfter: new(int64(opts.BreakAfter))})()
	}
	if opts.ThrottleEvery > 0 {
		defer fake.Inject(ecrtest.Fault{On: ecrtest.Any, Every: opts.ThrottleEvery, Throttle: true})()
	}
	if err := lib.addTo(fake.Server, opts.Images); err != nil {
		return err
	}
	greet(stdout, fake, opts.TLSCA, lib.images)
	<-ctx.Done()
	fmt.Fprintln(stdout, "Ended.")
	return nil
}

// library is the layouts that are served, and their images.
type library struct {
	layouts []*layout
	images  []served
}

// addTo adds the images of layouts to a registry, or a sample if there are no layouts.
func (l *library) addTo(fake *ecrtest.Server, paths []string) error {
	if len(paths) == 0 {
		sample, err := addSample(fake)
		l.images = append(l.images, sample)
		return err
	}
	for _, path := range paths {
		opened, err := openLayout(path)
		if err != nil {
			return fmt.Errorf("opening the images of %s: %w", path, err)
		}
		l.layouts = append(l.layouts, opened)
		images, err := addLayout(fake, opened)
		if err != nil {
			return fmt.Errorf("reading the images of %s: %w", path, err)
		}
		l.images = append(l.images, images...)
	}
	return nil
}

func (l *library) close() error {
	var errs []error
	for _, opened := range l.layouts {
		errs = append(errs, opened.close())
	}
	return errors.Join(errs...)
}

// greet writes which images are served, at least one, and how to put Larder in front of them. ca is the file of the CA
// that Larder has to trust, if any.
func greet(out io.Writer, fake *ecrtest.Running, ca string, images []served) {
	fmt.Fprintf(out, "%s is at %s, with\n\n", fake.Host(), fake.Endpoint)
	slices.SortStableFunc(images, func(a, b served) int {
		return cmp.Or(cmp.Compare(a.repository, b.repository), cmp.Compare(a.tag, b.tag))
	})
	for _, i := range images {
		fmt.Fprintf(out, "    %-40s %9s  %s\n", i.repository+i.reference(), humanize.Bytes(uint64(i.size)), i.root.Digest)
	}
	trust := ""
	if ca != "" {
		trust = fmt.Sprintf(" SSL_CERT_FILE='%s'", ca)
	}
	fmt.Fprintf(out, `
A configuration of Larder in front of it, larder.yaml:

    listen: 127.0.0.1:5000
    admin: ""
    cache: {dir: larder-cache}
    default_upstream: ""
    upstreams:
      - host: %s
        endpoint: %s
        ecr: {api_endpoint: %s}

The only credentials that it accepts:

    export AWS_ACCESS_KEY_ID=AKIDLARDERTEST AWS_SECRET_ACCESS_KEY=secret%s
    larder serve --config larder.yaml

`, fake.Host(), fake.Endpoint, fake.Endpoint, trust)
	i := images[0]
	fmt.Fprintf(out, `Pulls through Larder:

    curl -i http://127.0.0.1:5000/v2/%[1]s/%[2]s/manifests/%[3]s
    crane pull --insecure 127.0.0.1:5000/%[1]s/%[2]s%[4]s image.tar

`, fake.Host(), i.repository, cmp.Or(i.tag, i.root.Digest.String()), i.reference())
}
