package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8/cwriter"
	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

const (
	// maxNodes bounds a roll-out: all nodes share this machine.
	maxNodes = 12
	// demoPatience is longer than a node's own, as all share the processors.
	demoPatience = 5 * time.Second
	drawEvery    = 150 * time.Millisecond
	// defaultWidth is that of what is no terminal.
	defaultWidth = 80
)

// A rollout is some nodes that pull the same image at the same time, and share what they fetch.
type rollout struct {
	dir   string // has all files, and is removed at the end
	ecr   *ecrtest.Running
	image image
	nodes []*larder
}

// rollOut starts some nodes, has a client of each pull an image at the same time, and draws the bytes that move. The error
// is nil if the upstream has sent each byte once.
func rollOut(ctx context.Context, opts options, stdout, stderr io.Writer) (err error) {
	r := new(rollout)
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(ctx, opts, stderr); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "A roll-out: %d cold nodes pull an image of %s at the same time.\n", len(r.nodes), size(r.image.Size))
	fmt.Fprintf(stdout, "The upstream gives %s/s to each connection.\n\n", size(slowLink))
	screen := cwriter.New(stdout)
	began := time.Now()
	seen, err := r.run(ctx, screen)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	width := defaultWidth
	if columns, _, err := screen.GetTermSize(); err == nil {
		width = columns - 1 // a full line would be wrapped
	}
	if err := draw(screen, seen, width); err != nil {
		return err
	}
	var wanted, sent int64
	for _, blob := range r.image.Blobs {
		wanted += blob.Size
		sent += r.ecr.Stats().Blobs[blob.Digest].Bytes
	}
	if sent != wanted {
		return fmt.Errorf("the upstream sent %s, and the image has %s: some node waited too long for another one", size(sent), size(wanted))
	}
	text := []string{
		fmt.Sprintf("✓ %d nodes got %s each in %v.", len(r.nodes), size(wanted), rounded(took)),
		fmt.Sprintf("The upstream sent %s: each byte once.", size(sent)),
		fmt.Sprintf("Without sharing, it would have sent %s.", size(wanted*int64(len(r.nodes)))),
	}
	_, err = fmt.Fprintf(stdout, "\n%s\n", strings.Join(wrapWords(text, width), "\n"))
	return err
}

// wrapWords puts sentences on one line, or each on its own.
func wrapWords(sentences []string, width int) []string {
	if one := strings.Join(sentences, " "); len(one) <= width {
		return []string{one}
	}
	return sentences
}

func (r *rollout) open(ctx context.Context, opts options, stderr io.Writer) (err error) {
	if err := isolate(); err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp("", "larder-demo-"); err != nil {
		return err
	}
	if r.ecr, err = ecrtest.Start(ecrtest.Options{BytesPerSecond: slowLink}); err != nil {
		return err
	}
	var layers []ecrtest.Layer
	for i, n := range []int64{12, 10, 9, 8, 7, 6, 5, 3} {
		layers = append(layers, ecrtest.Layer{Content: ecrtest.TarLayer("data", uint64(i+1), n*opts.unit)})
	}
	added, err := r.ecr.AddImage("team/app", tag, ecrtest.Image{Layers: layers})
	if err != nil {
		return err
	}
	r.image = image{name: "team/app", Added: added}
	log := slog.New(slog.DiscardHandler)
	if opts.Log {
		log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	key := filepath.Join(r.dir, "peers.key")
	if err := os.WriteFile(key, []byte(ring.NewKey().Encode()+"\n"), 0o600); err != nil {
		return err
	}
	first, err := freePorts(ctx)
	if err != nil {
		return err
	}
	for i := range opts.Nodes {
		listen := "127.0.0.1:0"
		if i == 0 {
			listen = fmt.Sprintf("127.0.0.1:%d", first)
		}
		cfg, err := r.configure(i, listen, first+1, key)
		if err != nil {
			return err
		}
		l := &larder{cfg: cfg, log: log, patience: demoPatience}
		if err := l.start(ctx); err != nil {
			return err
		}
		r.nodes = append(r.nodes, l)
	}
	return r.awaitNodes(ctx)
}

// freePorts returns a port that is free, as the one after it is.
func freePorts(ctx context.Context) (int, error) {
	for range 100 {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		next, err := new(net.ListenConfig).Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err := l.Close(); err != nil {
			return 0, err
		}
		if err == nil {
			return port, next.Close()
		}
	}
	return 0, errors.New("there are no two free ports side by side")
}

// configure writes a node's configuration and loads it.
func (r *rollout) configure(i int, listen string, gossip int, key string) (*config.Config, error) {
	dir := filepath.Join(r.dir, fmt.Sprint(i+1))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "larder.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:0
admin: ""
cache: {dir: cache, min_free: 0}
default_upstream: ""
upstreams:
  - {host: %[1]s, endpoint: %[2]q, ecr: {api_endpoint: %[2]q}}
peers: {listen: %[3]q, join: ["127.0.0.1:%[4]d"], key_file: %[5]q, zone: demo}
`, r.ecr.Host(), r.ecr.Endpoint, listen, gossip, key)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return config.Load(path)
}

// awaitNodes waits until all nodes know each other.
func (r *rollout) awaitNodes(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, l := range r.nodes {
		for {
			known, err := l.peers(ctx)
			if err != nil {
				return err
			}
			if len(known.Nodes) == len(r.nodes) {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return errors.New("interrupted")
			}
		}
	}
	return nil
}

// close ends everything and removes it, also after open failed midway.
func (r *rollout) close() error {
	var stopping errgroup.Group
	for _, l := range r.nodes {
		stopping.Go(l.stop)
	}
	err := stopping.Wait()
	if r.ecr != nil {
		err = errors.Join(err, r.ecr.Close())
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// run pulls the image from all nodes, and draws what moves if that is seen on a terminal. It returns what has moved at the
// end.
func (r *rollout) run(ctx context.Context, screen *cwriter.Writer) (flows, error) {
	pulls, pulling := errgroup.WithContext(ctx)
	for _, l := range r.nodes {
		pulls.Go(func() error {
			got, err := pull(pulling, l.addr+"/"+r.ecr.Host()+"/"+r.image.name+":"+tag, nil)
			if err == nil && got.digest != r.image.Root.Digest.String() {
				err = fmt.Errorf("%s led to %s, want %s", r.image.name, got.digest, r.image.Root.Digest)
			}
			return err
		})
	}
	ended := make(chan error, 1)
	go func() { ended <- pulls.Wait() }()
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				return flows{}, err
			}
			return r.flows(ctx)
		case <-tick.C:
		}
		width, _, err := screen.GetTermSize()
		if err != nil || !screen.IsTerminal() {
			continue
		}
		seen, err := r.flows(ctx)
		if err != nil {
			continue // the pulls tell why
		}
		if err := draw(screen, seen, width-1); err != nil {
			return flows{}, errors.Join(err, <-ended)
		}
	}
}

// draw draws the picture over the last one.
func draw(screen *cwriter.Writer, seen flows, width int) error {
	lines := seen.picture(width)
	for _, line := range lines {
		screen.WriteString(line + "\n")
	}
	return screen.Flush(len(lines))
}

// flows asks the nodes what they have got, and from where.
func (r *rollout) flows(ctx context.Context) (flows, error) {
	f := flows{}
	for _, blob := range r.image.Blobs {
		f.size += blob.Size
	}
	numbers := make(map[string]int) // of the nodes, by their addresses
	known := make([]share.Status, len(r.nodes))
	for i, l := range r.nodes {
		var err error
		if known[i], err = l.peers(ctx); err != nil {
			return flows{}, err
		}
		for _, n := range known[i].Nodes {
			if n.Self {
				numbers[n.Address] = i
			}
		}
	}
	for i, l := range r.nodes {
		var done struct {
			Fetched int64 `json:"fetched"`
		}
		if err := l.ask(ctx, "activity", &done); err != nil {
			return flows{}, err
		}
		node := nodeFlow{peers: make([]int64, len(r.nodes))}
		var taken int64
		for _, n := range known[i].Nodes {
			if from, ok := numbers[n.Address]; ok && !n.Self {
				node.peers[from] = n.Taken
				taken += n.Taken
			}
		}
		node.upstream = max(done.Fetched-taken, 0)
		f.nodes = append(f.nodes, node)
	}
	return f, nil
}

// peers asks a node for what it knows of its cluster.
func (l *larder) peers(ctx context.Context) (known share.Status, err error) {
	return known, l.ask(ctx, "peers", &known)
}

// ask asks for a part of a node's state, over the socket that its commands use.
func (l *larder) ask(ctx context.Context, what string, v any) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return daemon.Dial(ctx, l.cfg.Cache.Dir)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://larder/api/v1/"+what, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asked a node for %s: %s", what, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}
