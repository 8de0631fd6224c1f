package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/bucket/buckettest"
)

const (
	host       = "registry.example.com"
	repository = "team/app"
)

// node is a node with a bucket, an upstream and a cache, all of them in memory. It is safe for concurrent use.
type node struct {
	*bucket.Bucket
	source *bucket.Source
	log    *logged
	stop   func()

	mu    sync.Mutex // guards what follows
	have  map[digest.Digest][]byte
	tags  map[string]digest.Digest
	asked []string // of the upstream
	dead  error    // what the upstream answers instead
	cache map[digest.Digest][]byte
	knows bool // the node knows the repository to have everything
	tagAt time.Time
	aged  time.Duration
}

type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// patience is how long the nodes of tests wait for the bucket. Tests that count on an answer in time use more.
const patience = 10 * time.Second

// start starts a node that ends with the test. change may change its settings.
func start(t *testing.T, store *buckettest.Store, change func(*bucket.Options)) *node {
	t.Helper()
	endpoint, err := url.Parse(store.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport)
	n := &node{
		log: new(logged), knows: true,
		have: make(map[digest.Digest][]byte), tags: make(map[string]digest.Digest), cache: make(map[digest.Digest][]byte),
	}
	opts := bucket.Options{
		Place: bucket.Place{Bucket: buckettest.Bucket, Prefix: "larder", Region: "us-east-1", Endpoint: endpoint, PathStyle: true},
		AWS:   aws.Config{Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}, Transport: transport,
		Write: true, Open: n.open, Patience: patience, Log: slog.New(slog.NewTextHandler(n.log, nil)),
	}
	if change != nil {
		change(&opts)
	}
	if n.Bucket, err = bucket.New(opts); err != nil {
		t.Fatal(err)
	}
	n.source = n.Source(bucket.Settings{
		Host: host, Registry: n, OpenBlob: n.openBlob, Timeout: time.Minute, StaleIfError: time.Hour,
		Knows:      func(string, digest.Digest, bool) bool { n.mu.Lock(); defer n.mu.Unlock(); return n.knows },
		TagChecked: func(string, string) time.Time { return n.tagAt },
		Parts:      n.partsOf,
		Aged:       func(_ context.Context, age time.Duration) { n.aged = age },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
	})
	t.Cleanup(n.stop)
	return n
}

func readOnly(o *bucket.Options) { o.Write = false }

// key is a key of records.
func key(t *testing.T, n *node, first byte, others ...byte) {
	t.Helper()
	keys := [][]byte{bytes.Repeat([]byte{first}, 32)}
	for _, b := range others {
		keys = append(keys, bytes.Repeat([]byte{b}, 32))
	}
	if err := n.UseKeys(keys); err != nil {
		t.Fatal(err)
	}
}

// add has the upstream have something.
func (n *node) add(text []byte) digest.Digest {
	d := digest.FromBytes(text)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.have[d] = text
	return d
}

func (n *node) ask(what string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, what)
	return n.dead
}

// questions returns what the upstream was asked.
func (n *node) questions() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

func (n *node) Manifest(_ context.Context, _, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	if err := n.ask("manifest " + reference); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	d := digest.Digest(reference)
	if tagged, ok := n.tags[reference]; ok {
		d = tagged
	}
	raw, ok := n.have[d]
	if !ok {
		return ocispec.Descriptor{}, nil, fs.ErrNotExist
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(raw))}
	if head {
		raw = nil
	}
	return desc, raw, nil
}

func (n *node) BlobSize(_ context.Context, _ string, d digest.Digest) (int64, error) {
	if err := n.ask("size " + d.String()); err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.have[d]; !ok {
		return 0, fs.ErrNotExist
	}
	return int64(len(n.have[d])), nil
}

func (n *node) List(context.Context, string, string, url.Values) (http.Header, []byte, error) {
	return nil, nil, n.ask("list")
}

func (n *node) openBlob(_ context.Context, _ string, d digest.Digest, part upstream.Range) (upstream.Content, error) {
	if err := n.ask("blob " + d.String()); err != nil {
		return upstream.Content{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	text, ok := n.have[d]
	if !ok {
		return upstream.Content{}, fs.ErrNotExist
	}
	end := min(int64(len(text)), part.Off+part.Len)
	return upstream.Content{Body: io.NopCloser(bytes.NewReader(text[part.Off:end])), Size: int64(len(text))}, nil
}

// open is for bucket.Options.
func (n *node) open(_, _ string, d digest.Digest) (bucket.Verified, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text, ok := n.cache[d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return inMemory{bytes.NewReader(text)}, nil
}

// partsOf is for bucket.Settings: an image is all that the cache has.
func (n *node) partsOf(string, digest.Digest) []digest.Digest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.cache))
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// fill fetches a blob as a fill does: it goes on where a body broke off, and tells what came of it.
func (n *node) fill(ctx context.Context, d digest.Digest, size int64) error {
	var got []byte
	for range 8 {
		content, err := n.source.OpenBlob(ctx, repository, d, upstream.Range{Off: int64(len(got)), Len: max(size, 1<<20) - int64(len(got)), Size: size})
		if err != nil {
			return err
		}
		more, err := io.ReadAll(content.Body)
		content.Body.Close()
		got = append(got, more...)
		if err == nil && int64(len(got)) >= content.Size {
			break
		}
	}
	if digest.FromBytes(got) != d {
		n.Mismatched(d)
		return fmt.Errorf("%d bytes that do not match", len(got))
	}
	n.keep(d, got)
	return nil
}

// keep has the node's cache have something.
func (n *node) keep(d digest.Digest, text []byte) {
	n.mu.Lock()
	n.cache[d] = text
	n.mu.Unlock()
	n.Filled(d)
}

// settle waits until nothing waits to be put.
func (n *node) settle(t *testing.T) {
	t.Helper()
	n.await(t, func(s bucket.Status) bool { return s.Queued == 0 })
}

func (n *node) await(t *testing.T, what func(bucket.Status) bool) {
	t.Helper()
	for !what(n.Status()) {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("it does not happen: %+v\n%s", n.Status(), n.log)
		}
	}
}

func blobName(d digest.Digest) string {
	return "larder/" + host + "/blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded()
}

// puts returns how many times each object of a folder was sent, the probe left out.
func puts(store *buckettest.Store, folder string) map[string]int {
	sent := make(map[string]int)
	for _, r := range store.Requests(http.MethodPut) {
		if strings.Contains(r.Name, "/"+folder+"/") && r.Query.Get("uploadId") == "" {
			sent[r.Name]++
		}
	}
	return sent
}

// content returns n bytes.
func content(seed byte, n int) []byte {
	text := make([]byte, n)
	for i := range text {
		text[i] = seed + byte(i*7) + byte(i>>8)
	}
	return text
}

var errDead = errors.New("connection refused")

func names(objects map[string][]byte) []string { return slices.Sorted(maps.Keys(objects)) }
