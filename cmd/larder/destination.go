package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/disk"
)

// exportState is what an export was told. It stands beside the output until that is complete,
// so that only the same export goes on with it.
type exportState struct {
	Images      []string      `json:"images"`
	Platforms   []string      `json:"platforms,omitempty"`
	Referrers   bool          `json:"referrers,omitempty"`
	MissingFrom digest.Digest `json:"missingFrom,omitempty"` // of the inventory
	Split       int64         `json:"split,omitempty"`       // bytes
	Sign        string        `json:"sign,omitempty"`
}

// destination is where a bundle is written: standard output, or files.
type destination struct {
	p      *invocation
	path   string
	stream io.WriteCloser // nil for files
}

// newDestination returns the destination with a path: see [outputOf].
func newDestination(p *invocation, path string) (*destination, error) {
	if path == standardStream && isTerminal(p.stdout) {
		return nil, usageError{errors.New("a bundle is not for a terminal: redirect standard output")}
	}
	stream, file, err := outputOf(p, path)
	return &destination{p: p, path: cmp.Or(file, path), stream: stream}, err
}

// isStandardOutput reports whether the bundle goes where reports go otherwise.
func (o *destination) isStandardOutput() bool {
	_, is := o.stream.(nopCloser)
	return is
}

func (o *destination) isStream() bool { return o.stream != nil }

// statePath is the file that has the state of an export until that is complete.
func (o *destination) statePath() string { return partialOf(o.path) + ".json" }

// part returns the name of a part, with its number before the extension if there are several.
func (o *destination) part(number, parts int) string {
	if parts == 1 {
		return o.path
	}
	dir, file := filepath.Split(o.path)
	stem, extension := file, ""
	if i := strings.IndexByte(file[min(1, len(file)):], '.'); i >= 0 {
		stem, extension = file[:i+1], file[i+1:]
	}
	return dir + stem + "." + strconv.Itoa(number) + extension
}

// planned returns the plan of an export that was interrupted, and its signature; nil if there
// is none. The error is about one that is to be another bundle.
func (o *destination) planned(wanted exportState) (*bundle.Plan, []byte, error) {
	if o.isStream() {
		return nil, nil, nil
	}
	raw, err := os.ReadFile(o.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(raw, encodeState(wanted)) {
		return nil, nil, fmt.Errorf("%s is what is left of another export, which was interrupted: repeat that one, or remove it", o.statePath())
	}
	parts := 1
	if wanted.Split > 0 {
		parts = 2 // or more; the first one has a number then
	}
	for n := parts; n >= 1; n-- {
		first := o.part(1, n)
		for _, path := range []string{partialOf(first), first} {
			if plan, signature := readPlan(path); plan != nil && plan.Description().Parts > 1 == (n > 1) {
				return plan, signature, nil
			}
		}
	}
	return nil, nil, nil
}

// readPlan reads the plan of a part, whole or not, and its signature. It returns nil if there
// is none.
func readPlan(path string) (*bundle.Plan, []byte) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil
	}
	defer file.Close()
	r, err := bundle.NewReader(struct{ io.Reader }{file}) // the end is not there yet
	if err != nil {
		return nil, nil
	}
	defer r.Close()
	return r.Plan(), r.Signature()
}

func encodeState(s exportState) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // it has texts and numbers
	}
	return raw
}

// write writes the parts of a bundle, and returns their files.
func (o *destination) write(ctx context.Context, state exportState, plan *bundle.Plan, signature []byte, open bundle.Open) ([]exportedFile, error) {
	if !o.isStream() {
		if err := replaceFile(o.statePath(), bytes.NewReader(encodeState(state))); err != nil {
			return nil, err
		}
	}
	parts := plan.Description().Parts
	files := make([]exportedFile, parts)
	all := make([]*bundle.Part, parts)
	var total int64
	for i := range all {
		var err error
		if all[i], err = plan.Part(i+1, signature); err != nil {
			return nil, err
		}
		files[i] = exportedFile{o.part(i+1, parts), all[i].Size()}
		total += all[i].Size()
	}
	shown := newProgress(o.p.stderr)
	defer shown.end()
	at := &counter{progress: shown, total: total}
	for i, part := range all {
		var err error
		if o.isStream() {
			err = part.Write(ctx, io.MultiWriter(o.stream, at), 0, open)
			err = errors.Join(err, o.stream.Close())
		} else {
			err = writePart(ctx, files[i].Name, part, at, open)
		}
		if ctx.Err() != nil {
			return nil, errInterrupted
		}
		if errors.Is(err, unix.EFBIG) {
			err = fmt.Errorf("%w: a drive with FAT takes files below 4 GB: use --split 4GB", err)
		}
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", files[i].Name, err)
		}
	}
	if o.isStream() {
		return files, nil
	}
	return files, os.Remove(o.statePath())
}

// writePart writes a part into a file, and goes on with what an interrupted export left.
func writePart(ctx context.Context, path string, part *bundle.Part, at *counter, open bundle.Open) error {
	if done, err := isPart(path, part); done || err != nil {
		at.add(part.Size())
		return err
	}
	file, err := os.OpenFile(partialOf(path), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	kept, err := part.Kept(file)
	if err == nil {
		err = file.Truncate(kept)
	}
	if err == nil {
		_, err = file.Seek(kept, io.SeekStart)
	}
	if err == nil {
		at.add(kept)
		err = part.Write(ctx, io.MultiWriter(&partFile{file: file, begun: kept, end: kept}, at), kept, open)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	return complete(file, path)
}

// partFile writes a part, and has the kernel write it to the disk meanwhile.
type partFile struct {
	file       *os.File
	begun, end int64 // what the kernel was told to write, and what the file has, in bytes
}

// Write is for [io.Writer].
func (f *partFile) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	f.end += int64(n)
	if f.end-f.begun >= writebackStep {
		disk.BeginWriteback(f.file, f.begun, f.end-f.begun)
		f.begun = f.end
	}
	return n, err
}

// writebackStep is how many bytes the kernel is told to write at once.
const writebackStep = 8 << 20

// isPart reports whether a part was written before.
func isPart(path string, part *bundle.Part) (bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() != part.Size() {
		return false, err
	}
	kept, err := part.Kept(file)
	return kept == part.Size(), err
}

// counter shows how many bytes were written.
type counter struct {
	progress    *progress
	done, total int64
}

func (c *counter) add(n int64) {
	c.done += n
	c.progress.at(c.done, c.total)
}

// Write is for [io.Writer].
func (c *counter) Write(p []byte) (int, error) {
	c.add(int64(len(p)))
	return len(p), nil
}
