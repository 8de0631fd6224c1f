package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// fakeECRCommand is the name under which this test binary is the fake ECR. Its arguments are a static busybox, and the
// addresses of the registry and of its storage.
const fakeECRCommand = "fake-ecr"

// fakeECRMain is the main function of that process. It returns when standard input ends, so that the process never
// outlives the tests.
func fakeECRMain() {
	if err := runFakeECR(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", fakeECRCommand, err)
		os.Exit(1)
	}
}

// A fakeECRHello is the one line that the process writes when it is ready.
type fakeECRHello struct {
	Host     string // the registry's name, as images carry it
	Endpoint string // URL of the registry and the ECR API
	Control  string // URL of what the tests ask of the fake itself
	Image    ecrtest.Added
}

func runFakeECR(args []string, stdin io.Reader, stdout io.Writer) (err error) {
	fake, err := ecrtest.StartAt(ecrtest.Options{}, args[1], args[2])
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	defer func() { err = errors.Join(err, fake.Close()) }()
	image, err := addImage(fake.Server, args[0])
	if err != nil {
		return fmt.Errorf("adding the image: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for the tests: %w", err)
	}
	control := &http.Server{Handler: controlHandler(fake.Server)}
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(listener) }()

	err = json.NewEncoder(stdout).Encode(fakeECRHello{
		Host:     fake.Host(),
		Endpoint: fake.Endpoint,
		Control:  "http://" + listener.Addr().String(),
		Image:    *image,
	})
	if err == nil {
		_, err = io.Copy(io.Discard, stdin)
	}
	err = errors.Join(err, control.Close())
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// addImage adds an image that a container can run, for two platforms, and an artifact that refers to it. It has busybox
// and two layers that are large enough to take a client some time.
func addImage(s *ecrtest.Server, busyboxPath string) (*ecrtest.Added, error) {
	busybox, diffID, err := ecrtest.Busybox(busyboxPath)
	if err != nil {
		return nil, err
	}
	return s.AddImage(imageRepository, imageTag, ecrtest.Image{
		Layers: []ecrtest.Layer{
			{Content: busybox, MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: diffID},
			{Content: ecrtest.TarLayer("data/small", 1, 4<<20), MediaType: ocispec.MediaTypeImageLayer},
			{Content: ecrtest.TarLayer("data/large", 2, 40<<20), MediaType: ocispec.MediaTypeImageLayer},
		},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Cmd:       []string{"/bin/echo", greeting},
		Artifact:  true,
	})
}

// A plainImage is an image with random layers, for one platform. Images with different seeds share no content.
type plainImage struct {
	Repository, Tag string
	Seed            uint64
	Layers          []int64 // their sizes in bytes
}

// add puts the image into the fake.
func (i plainImage) add(s *ecrtest.Server) (*ecrtest.Added, error) {
	layers := make([]ecrtest.Layer, len(i.Layers))
	for n, size := range i.Layers {
		content, err := newTiles(i.Seed<<32+uint64(n), size)
		if err != nil {
			return nil, err
		}
		layers[n].Content = content
	}
	return s.AddImage(i.Repository, i.Tag, ecrtest.Image{Layers: layers})
}

// tiles is content that repeats one random tile. Reading it copies memory, which the race detector slows down less than
// making random bytes.
type tiles struct {
	tile []byte
	size int64
}

// tileSize is a prime, so that no two segments of a blob begin alike.
const tileSize = 1<<20 - 3

func newTiles(seed uint64, size int64) (tiles, error) {
	tile := make([]byte, min(size, tileSize))
	_, err := ecrtest.Random(seed, int64(len(tile))).ReadAt(tile, 0)
	return tiles{tile: tile, size: size}, err
}

func (c tiles) Size() int64 { return c.size }

func (c tiles) ReadAt(p []byte, off int64) (int, error) {
	var n int
	for n < len(p) && off < c.size {
		tile := c.tile[off%int64(len(c.tile)):]
		m := copy(p[n:], tile[:min(int64(len(tile)), c.size-off)])
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// controlHandler serves the tests' requests to the process.
func controlHandler(s *ecrtest.Server) http.Handler {
	removals := make(chan func(), 16) // of the faults injected; no test has so many
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.Stats())
	})
	mux.HandleFunc("POST /images", func(w http.ResponseWriter, r *http.Request) {
		var image plainImage
		err := json.NewDecoder(r.Body).Decode(&image)
		if err == nil {
			var added *ecrtest.Added
			if added, err = image.add(s); err == nil {
				err = json.NewEncoder(w).Encode(added)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("POST /bandwidth", func(w http.ResponseWriter, r *http.Request) {
		var bytesPerSecond int64
		if err := json.NewDecoder(r.Body).Decode(&bytesPerSecond); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.SetBandwidth(bytesPerSecond)
	})
	mux.HandleFunc("POST /expire-tokens", func(http.ResponseWriter, *http.Request) { s.ExpireTokens() })
	mux.HandleFunc("POST /expire-urls", func(http.ResponseWriter, *http.Request) { s.ExpireURLs() })
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f ecrtest.Fault
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		removals <- s.Inject(f)
	})
	mux.HandleFunc("DELETE /faults", func(http.ResponseWriter, *http.Request) {
		for {
			select {
			case remove := <-removals:
				remove()
			default:
				return
			}
		}
	})
	return mux
}
