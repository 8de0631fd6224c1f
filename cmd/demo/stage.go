package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// stage is the fake ECR and Larder, which the steps use.
type stage struct {
	dir    string // has all files, and is removed at the end
	ecr    *ecrtest.Running
	larder *larder
	logs   *os.File  // nil if there is none
	out    io.Writer // for the tour's text
	drawn  io.Writer // for progress bars

	images struct{ app, api, model, worker, billing image }
}

// image is an image of the fake ECR.
type image struct {
	name    string          // of the repository
	content ecrtest.Content // of its largest layer
	*ecrtest.Added
}

// tag is the tag of every image.
const tag = "1.0"

// largest returns the image's largest layer.
func (i image) largest() ocispec.Descriptor {
	return slices.MaxFunc(i.Blobs, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Size, b.Size) })
}

// openStage starts the fake ECR, and Larder in front of it with an empty cache.
func openStage(ctx context.Context, opts options, stdout, stderr io.Writer) (*stage, error) {
	s := &stage{out: stdout, drawn: stdout}
	if err := s.open(ctx, opts, stderr); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) open(ctx context.Context, opts options, stderr io.Writer) (err error) {
	if err := isolate(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "larder-demo-"); err != nil {
		return err
	}
	if s.ecr, err = ecrtest.Start(ecrtest.Options{}); err != nil {
		return err
	}
	if err := s.addImages(opts.unit); err != nil {
		return err
	}
	cfg, err := s.configure()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	switch {
	case opts.Log:
		log = slog.New(slog.NewTextHandler(stderr, nil))
		s.drawn = io.Discard // bars would overwrite the log's lines
	case opts.Keep:
		if s.logs, err = os.Create(filepath.Join(s.dir, "larder.log")); err != nil {
			return err
		}
		log = slog.New(slog.NewTextHandler(s.logs, nil))
	}
	s.larder, err = startLarder(ctx, cfg, log)
	return err
}

// close ends everything and removes it, also after open failed midway.
func (s *stage) close() error {
	var errs []error
	if s.larder != nil {
		errs = append(errs, s.larder.stop())
	}
	if s.ecr != nil {
		errs = append(errs, s.ecr.Close())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// isolate keeps the AWS SDK in this process away from the credentials and settings of its user. Proxies need no
// such care: Go never uses one to a loopback address.
func isolate() error {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "AWS_") {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	for _, entry := range [][2]string{
		{"AWS_ACCESS_KEY_ID", "AKIDLARDERTEST"}, // the one that the fake ECR expects
		{"AWS_SECRET_ACCESS_KEY", "secret"},
		{"AWS_CONFIG_FILE", os.DevNull},
		{"AWS_SHARED_CREDENTIALS_FILE", os.DevNull},
		{"AWS_EC2_METADATA_DISABLED", "true"},
	} {
		if err := os.Setenv(entry[0], entry[1]); err != nil {
			return err
		}
	}
	return nil
}

// configure writes the configuration and loads it. A tag is never fresh, so that each pull by tag asks the upstream, or
// finds that it cannot.
func (s *stage) configure() (*config.Config, error) {
	path := filepath.Join(s.dir, "larder.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:0
admin: ""
cache: {dir: cache, min_free: 0}
tags: {ttl: 0s}
default_upstream: ""
upstreams:
  - host: %s
    endpoint: %s
    ecr: {api_endpoint: %s}
`, s.ecr.Host(), s.ecr.Endpoint, s.ecr.Endpoint)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return config.Load(path)
}

// Sizes in bytes, for images of any unit.
const (
	divided = 17_000_000 // more than two segments: Larder fetches the layer over several connections
	farOff  = 40_000_000 // beyond what these connections fetch first
)

// addImages gives the fake ECR the images of the tour, the same each time.
func (s *stage) addImages(unit int64) error {
	var seed uint64
	for _, wanted := range []struct {
		image  *image
		name   string
		layers []int64 // the largest is the last
	}{
		{&s.images.app, "team/app", []int64{4 << 10, unit, 24 * unit, divided + 79*unit}},
		{&s.images.api, "team/api", []int64{4 << 10, 8 * unit, 40 * unit}},
		{&s.images.model, "team/model", []int64{4 << 10, farOff + 60*unit}},
		{&s.images.worker, "team/worker", []int64{4 << 10, 16 * unit}},
		{&s.images.billing, "team/billing", []int64{4 << 10, 16 * unit}},
	} {
		var layers []ecrtest.Layer
		for _, n := range wanted.layers {
			seed++
			layers = append(layers, ecrtest.Layer{Content: ecrtest.TarLayer("data", seed, n)})
		}
		added, err := s.ecr.AddImage(wanted.name, tag, ecrtest.Image{
			Layers:    layers,
			Platforms: []string{"linux/amd64", "linux/arm64"},
		})
		if err != nil {
			return err
		}
		*wanted.image = image{wanted.name, layers[len(layers)-1].Content, added}
	}
	return nil
}

// repository is a repository's name in front of Larder: its address, then the upstream's, then the repository's own.
func (s *stage) repository(name string) string {
	return s.larder.addr + "/" + s.ecr.Host() + "/" + name
}

// pull pulls an image by its tag, as one client.
func (s *stage) pull(ctx context.Context, i image, watch watcher) (pulled, error) {
	return s.pullAs(ctx, i, ":"+tag, watch)
}

// pullByDigest is pull by what the tag led to.
func (s *stage) pullByDigest(ctx context.Context, i image) (pulled, error) {
	return s.pullAs(ctx, i, "@"+i.Root.Digest.String(), nil)
}

func (s *stage) pullAs(ctx context.Context, i image, reference string, watch watcher) (pulled, error) {
	got, err := pull(ctx, s.repository(i.name)+reference, watch)
	if err == nil && got.digest != i.Root.Digest.String() {
		err = fmt.Errorf("%s%s led to %s, want %s", i.name, reference, got.digest, i.Root.Digest)
	}
	return got, err
}

// requireSent returns an error unless the upstream has sent so many bytes of blobs in this step.
func (s *stage) requireSent(want int64) error {
	if sent := s.ecr.Stats().Bytes(); sent != want {
		return fmt.Errorf("the upstream sent %s bytes of blobs, want %s", humanize.Comma(sent), humanize.Comma(want))
	}
	return nil
}

// requireSentOf is requireSent for one blob.
func (s *stage) requireSentOf(blob digest.Digest, want int64) error {
	if sent := s.ecr.Stats().Blobs[blob].Bytes; sent != want {
		return fmt.Errorf("the upstream sent %s bytes of the layer, want %s", humanize.Comma(sent), humanize.Comma(want))
	}
	return nil
}
