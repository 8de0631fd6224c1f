package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// addresses is the one line that Serve prints when it is ready.
type addresses struct {
	Host     string // the registry's name in image references
	Endpoint string // URL of the registry and of the ECR API
	Storage  string // URL of the storage that blob requests are redirected to
	Control  string // URL of the control interface
	CA       []byte // certificate that clients have to trust, in PEM; none if it does not speak TLS
}

// Link describes the network between the servers and the upstream.
type Link struct {
	BytesPerSecond int64 // of each connection; 0 means no limit
	Latency        time.Duration
}

// Sent counts what the upstream has sent.
type Sent struct {
	Bytes    int64 // of blobs
	Requests int   // of all kinds
	// Handshakes of TLS, and how many of them were full: the others resumed a session.
	Handshakes, Full int
}

// Serve runs a fake ECR, over TLS if it is to be secure, and its control interface until stdin ends, and prints their
// addresses to stdout.
func Serve(ctx context.Context, secure bool, stdin io.Reader, stdout io.Writer) (err error) {
	fake, err := ecrtest.Start(ecrtest.Options{TLS: secure})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fake.Close()) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: controlHandler(fake), ReadHeaderTimeout: 30 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = json.NewEncoder(stdout).Encode(addresses{
		Host:     fake.Host(),
		Endpoint: fake.Endpoint,
		Storage:  fake.StorageURL,
		Control:  "http://" + listener.Addr().String(),
		CA:       fake.CA(),
	})
	if err == nil {
		_, err = io.Copy(io.Discard, stdin)
	}
	err = errors.Join(err, server.Close())
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// Paths of the control interface. Each is a POST with JSON in and out.
const (
	imagesPath = "/images"
	linkPath   = "/link"
	sentPath   = "/sent"
)

func controlHandler(fake *ecrtest.Running) http.Handler {
	mux := http.NewServeMux()
	handle := func(path string, answer func(body *json.Decoder) (any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := answer(json.NewDecoder(r.Body))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_ = json.NewEncoder(w).Encode(v) // the bench reports an answer that is cut short
		})
	}
	handle(imagesPath, func(body *json.Decoder) (any, error) {
		var spec ImageSpec
		if err := body.Decode(&spec); err != nil {
			return nil, err
		}
		return addImage(fake.Server, spec)
	})
	handle(linkPath, func(body *json.Decoder) (any, error) {
		var link Link
		err := body.Decode(&link)
		if err == nil {
			fake.SetBandwidth(link.BytesPerSecond)
			fake.SetLatency(link.Latency)
		}
		return struct{}{}, err
	})
	var full, resumed int // handshakes that were reported; requests come one at a time
	handle(sentPath, func(*json.Decoder) (any, error) {
		stats := fake.Stats()
		fake.ResetStats()
		allFull, allResumed := fake.Handshakes()
		sent := Sent{Bytes: stats.Bytes(), Full: allFull - full, Handshakes: allFull + allResumed - full - resumed}
		full, resumed = allFull, allResumed
		for _, n := range stats.Requests {
			sent.Requests += n
		}
		return sent, nil
	})
	return mux
}

// addImage makes an image and adds it to the fake.
func addImage(fake *ecrtest.Server, spec ImageSpec) (*ecrtest.Added, error) {
	var img ecrtest.Image
	add := func(seed uint64, sizes []int64) {
		for n, size := range sizes {
			img.Layers = append(img.Layers, ecrtest.Layer{Content: newTiles(seed<<32+uint64(n), size)})
		}
	}
	add(spec.BaseSeed, spec.Base)
	add(spec.Seed, spec.Layers)
	return fake.AddImage(spec.Repository, Tag, img)
}
