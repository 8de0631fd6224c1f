package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// parallel is how many blobs containerd fetches of an image at once (max_concurrent_downloads).
const parallel = 3

// pull pulls a whole image as containerd does: HEAD of the tag, GET of the manifest by digest, then the config and the
// layers, three at a time. With check it hashes every byte, as containerd does too, and believes nothing else; without,
// it drops them, as does a client that has processors of its own.
func pull(ctx context.Context, s *server, img *image, check bool) (served int64, err error) {
	c := newClient(ctx)
	defer c.close()
	a, err := c.ask(s, question{method: http.MethodHead, path: img.path("manifests", tag)})
	if err != nil {
		return 0, err
	}
	if _, err := a.drain(); err != nil {
		return 0, err
	}
	want := img.manifest()
	n, err := c.get(s, img.path("manifests", want.String()), ocispec.Descriptor{Digest: want, Size: img.added.Root.Size}, check)
	if err != nil {
		return 0, err
	}
	served = n
	blobs := make(chan ocispec.Descriptor, len(img.added.Blobs))
	config := len(img.added.Blobs) - 1 // the fake adds it last; containerd asks for it first
	blobs <- img.added.Blobs[config]
	for _, layer := range img.added.Blobs[:config] {
		blobs <- layer
	}
	close(blobs)
	group, ctx := errgroup.WithContext(ctx)
	var got [parallel]int64
	for i := range parallel {
		group.Go(func() error {
			c := newClient(ctx)
			defer c.close()
			for blob := range blobs {
				n, err := c.get(s, img.path("blobs", blob.Digest.String()), blob, check)
				if err != nil {
					return err
				}
				got[i] += n
			}
			return nil
		})
	}
	err = group.Wait()
	for _, n := range got {
		served += n
	}
	return served, err
}

// get gets something to its end, and wants it to be so long and, with check, to have that digest.
func (c *client) get(s *server, path string, want ocispec.Descriptor, check bool) (int64, error) {
	a, err := c.ask(s, question{path: path})
	if err != nil {
		return 0, err
	}
	var n int64
	right := true
	if check {
		verifier := want.Digest.Verifier()
		n, err = a.copy(verifier, make([]byte, 256*kib))
		right = verifier.Verified()
	} else {
		n, err = a.drain()
	}
	switch {
	case err != nil:
		return n, fmt.Errorf("%s: %s after %d bytes: %w", s.name, path, n, err)
	case n != want.Size || !right:
		return n, fmt.Errorf("%s: %s: %d bytes that are not the %d wanted", s.name, path, n, want.Size)
	}
	return n, nil
}

// lay puts the files of an image where a server of fixed files has them.
func lay(ctx context.Context, from, to *server, img *image) error {
	c := newClient(ctx)
	defer c.close()
	put := func(path string, names ...string) error {
		a, err := c.ask(from, question{path: path})
		if err != nil {
			return err
		}
		f, err := os.Create(fixedFile(to.place, names[0]))
		if err != nil {
			return err
		}
		if _, err := a.copy(f, make([]byte, 256*kib)); err != nil {
			return err
		}
		for _, name := range names[1:] {
			if err := os.Link(f.Name(), fixedFile(to.place, name)); err != nil {
				return err
			}
		}
		return f.Close()
	}
	manifest := img.manifest().String()
	if err := put(img.path("manifests", manifest), manifest, tag); err != nil {
		return err
	}
	var done = make(map[digest.Digest]bool)
	for _, blob := range img.added.Blobs {
		if done[blob.Digest] {
			continue
		}
		done[blob.Digest] = true
		if err := put(img.path("blobs", blob.Digest.String()), blob.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

// pullAll has n clients pull an image, times times each, and returns how many bytes they got.
func pullAll(ctx context.Context, s *server, img *image, n, times int, check bool) (served int64, took time.Duration, err error) {
	began := time.Now()
	got := make([]int64, n)
	group, ctx := errgroup.WithContext(ctx)
	for i := range n {
		group.Go(func() error {
			for range times {
				served, err := pull(ctx, s, img, check)
				if err != nil {
					return err
				}
				got[i] += served
			}
			return nil
		})
	}
	err = group.Wait()
	for _, n := range got {
		served += n
	}
	return served, time.Since(began), err
}
