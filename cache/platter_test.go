package cache

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/larder-registry/larder/cache/disk"
)

// platter follows the steps of a store and knows what of them is durable: the
// content of a file as of its last sync, the names in a folder as of the
// folder's. It makes folders as a crash at a given time may leave them. What does
// not go through disk it does not know: the index, and the lock.
type platter struct {
	dir string

	mu   sync.Mutex // guards what follows; held during a step
	root *node
}

// node is a file or a folder.
type node struct {
	folder        bool
	names, synced map[string]*node // of a folder

	mode     fs.FileMode // of a file, as all that follows
	content  []byte
	durable  []byte
	unsynced []disk.Step // since durable
}

func newPlatter(dir string) *platter { return &platter{dir: dir, root: newFolder()} }

func newFolder() *node {
	return &node{folder: true, names: make(map[string]*node), synced: make(map[string]*node)}
}

// around takes a step, between before, which sees it coming, and the model's
// taking note of it. fail says how it goes.
func (p *platter) around(fail func(disk.Step) failure, before func(disk.Step)) func(disk.Step, func() error) error {
	return func(s disk.Step, take func() error) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if before != nil {
			before(s)
		}
		how := works
		if fail != nil {
			how = fail(s)
		}
		if how == failsBefore {
			return &fs.PathError{Op: string(s.Op), Path: s.Path, Err: errDisk}
		}
		if err := p.take(s, take); err != nil {
			return err
		}
		p.note(s)
		if how == failsAfter {
			return &fs.PathError{Op: string(s.Op), Path: s.Path, Err: errDisk}
		}
		return nil
	}
}

// take leaves out what only a power cut could tell from nothing, and the space
// for the ballast: hundreds of stores are opened.
func (p *platter) take(s disk.Step, take func() error) error {
	if s.Op == disk.OpSync || s.Op == disk.OpSyncDir || s.Op == disk.OpPreallocate && !p.knows(s) {
		return nil
	}
	return take()
}

// find returns a node, and the names of the folder that it stands in.
func (p *platter) find(path string) (n *node, in map[string]*node, name string) {
	rel, err := filepath.Rel(p.dir, path)
	if err != nil || rel == "." {
		return p.root, nil, ""
	}
	n = p.root
	for part := range strings.SplitSeq(rel, "/") {
		if n == nil {
			return nil, nil, ""
		}
		in, name = n.names, part
		n = in[part]
	}
	return n, in, name
}

// knows reports whether a step is of this model.
func (p *platter) knows(s disk.Step) bool {
	l := disk.At(p.dir)
	return s.Path != l.Ballast() && !strings.HasPrefix(s.Path, l.Index()+".broken-") && s.Path != l.Index() && s.Path != p.dir
}

func (p *platter) note(s disk.Step) {
	if s.Op == disk.OpSyncDir {
		n, _, _ := p.find(s.Path)
		n.synced = maps.Clone(n.names)
		return
	}
	if !p.knows(s) {
		return
	}
	n, in, name := p.find(s.Path)
	switch s.Op {
	case disk.OpMkdir:
		in[name] = newFolder()
	case disk.OpCreate:
		if n == nil {
			in[name] = &node{mode: modeOf(s.Path)}
		} else if s.Flag&os.O_TRUNC != 0 {
			n.change(disk.Step{Op: disk.OpTruncate})
		}
	case disk.OpWrite, disk.OpTruncate, disk.OpPreallocate:
		n.change(s)
	case disk.OpSync:
		n.durable, n.unsynced = n.content, nil
	case disk.OpRename:
		_, to, toName := p.find(s.To)
		delete(in, name)
		to[toName] = n
	case disk.OpRemove, disk.OpRemoveAll:
		delete(in, name)
	}
}

// modeOf is by FORMAT.md.
func modeOf(path string) fs.FileMode {
	name := filepath.Base(path)
	if strings.HasPrefix(name, "put-") || name == filepath.Base(disk.At("").NewSnapshot()) {
		return 0o600
	}
	return 0o640
}

// change notes a change of content, as long as it is not synced.
func (n *node) change(s disk.Step) {
	s.Data = slices.Clone(s.Data)
	if s.Op == disk.OpWrite && s.Off < 0 {
		s.Off = int64(len(n.content))
	}
	n.content = applied(s, n.content)
	n.unsynced = append(n.unsynced, s)
}

// applied returns the content after the change.
func applied(s disk.Step, content []byte) []byte {
	size := int64(len(content))
	switch s.Op {
	case disk.OpTruncate:
		size = s.Size
	case disk.OpPreallocate:
		size = max(size, s.Size)
	case disk.OpWrite:
		size = max(size, s.Off+int64(len(s.Data)))
	}
	after := make([]byte, size)
	copy(after, content)
	copy(after[min(s.Off, size):], s.Data)
	return after
}

// wreck is what a crash leaves: the content of files, and nil for folders, by
// path below the folder.
type wreck map[string]*wreckFile

type wreckFile struct {
	content []byte
	mode    fs.FileMode
}

// crashing is a way for the machine to end.
type crashing struct {
	survives func() bool // asked of each change that was not synced
	torn     *rand.Rand  // nil where writes are there whole or not at all
}

// crash returns the folder as it may be when the machine ends while s happens.
func (p *platter) crash(s disk.Step, how crashing) wreck {
	if s.Op == disk.OpWrite && how.torn != nil && p.knows(s) {
		n, _, _ := p.find(s.Path)
		before := *n
		n.unsynced = slices.Clip(n.unsynced)
		n.change(s)
		defer func() { *n = before }()
	}
	w := make(wreck)
	how.leave(w, p.root, "")
	return w
}

func (how crashing) leave(w wreck, folder *node, path string) {
	names := maps.Clone(folder.synced)
	for name, n := range folder.names {
		if names[name] != n && how.survives() {
			names[name] = n
		}
	}
	for name := range folder.synced {
		if folder.names[name] == nil && how.survives() { // its removal
			delete(names, name)
		}
	}
	for name, n := range names {
		at := filepath.Join(path, name)
		if n.folder {
			w[at] = nil
			how.leave(w, n, at)
		} else {
			w[at] = &wreckFile{how.left(n), n.mode}
		}
	}
}

// left is what a file holds afterwards.
func (how crashing) left(n *node) []byte {
	content := n.durable
	for _, s := range n.unsynced {
		if !how.survives() {
			continue
		}
		if s.Op == disk.OpWrite && how.torn != nil && how.torn.IntN(3) == 0 {
			s.Data = s.Data[:how.torn.IntN(len(s.Data))]
		}
		content = applied(s, content)
	}
	return content
}

// build makes the folder.
func (w wreck) build(dir string) error {
	if err := os.Mkdir(dir, 0o750); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(w)) { // folders before what is in them
		var err error
		if f := w[path]; f == nil {
			err = os.Mkdir(filepath.Join(dir, path), 0o750)
		} else {
			err = os.WriteFile(filepath.Join(dir, path), f.content, f.mode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// damage has a file be another one at rest than it was.
func (p *platter) damage(path string, change func([]byte)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, _, _ := p.find(path)
	n.content = slices.Clone(n.content)
	change(n.content)
	n.durable = n.content
	return os.WriteFile(path, n.content, n.mode)
}
