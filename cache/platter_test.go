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
	unsynced []step // since durable
}

func newPlatter(dir string) *platter { return &platter{dir: dir, root: newFolder()} }

func newFolder() *node {
	return &node{folder: true, names: make(map[string]*node), synced: make(map[string]*node)}
}

// around takes a step, between before, which sees it coming, and the model's
// taking note of it. fail says how it goes.
func (p *platter) around(fail func(step) failure, before func(step)) func(step, func() error) error {
	return func(s step, take func() error) error {
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
			return &fs.PathError{Op: string(s.op), Path: s.path, Err: errDisk}
		}
		if err := p.take(s, take); err != nil {
			return err
		}
		p.note(s)
		if how == failsAfter {
			return &fs.PathError{Op: string(s.op), Path: s.path, Err: errDisk}
		}
		return nil
	}
}

// take leaves out what only a power cut could tell from nothing, and the space
// for the ballast: hundreds of stores are opened.
func (p *platter) take(s step, take func() error) error {
	if s.op == opSync || s.op == opSyncDir || s.op == opPreallocate && !p.knows(s) {
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
func (p *platter) knows(s step) bool {
	l := layout{dir: p.dir}
	return s.path != l.ballast() && !strings.HasPrefix(s.path, l.index()+".broken-") && s.path != l.index() && s.path != p.dir
}

func (p *platter) note(s step) {
	if s.op == opSyncDir {
		n, _, _ := p.find(s.path)
		n.synced = maps.Clone(n.names)
		return
	}
	if !p.knows(s) {
		return
	}
	n, in, name := p.find(s.path)
	switch s.op {
	case opMkdir:
		in[name] = newFolder()
	case opCreate:
		if n == nil {
			in[name] = &node{mode: modeOf(s.path)}
		} else if s.flag&os.O_TRUNC != 0 {
			n.change(step{op: opTruncate})
		}
	case opWrite, opTruncate, opPreallocate:
		n.change(s)
	case opSync:
		n.durable, n.unsynced = n.content, nil
	case opRename:
		_, to, toName := p.find(s.to)
		delete(in, name)
		to[toName] = n
	case opRemove, opRemoveAll:
		delete(in, name)
	}
}

// modeOf is by FORMAT.md.
func modeOf(path string) fs.FileMode {
	name := filepath.Base(path)
	if strings.HasPrefix(name, tmpPrefix) || name == filepath.Base(layout{}.newSnapshot()) {
		return 0o600
	}
	return 0o640
}

// change notes a change of content, as long as it is not synced.
func (n *node) change(s step) {
	s.data = slices.Clone(s.data)
	if s.op == opWrite && s.off < 0 {
		s.off = int64(len(n.content))
	}
	n.content = s.applied(n.content)
	n.unsynced = append(n.unsynced, s)
}

// applied returns the content after the change.
func (s step) applied(content []byte) []byte {
	size := int64(len(content))
	switch s.op {
	case opTruncate:
		size = s.size
	case opPreallocate:
		size = max(size, s.size)
	case opWrite:
		size = max(size, s.off+int64(len(s.data)))
	}
	after := make([]byte, size)
	copy(after, content)
	copy(after[min(s.off, size):], s.data)
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
func (p *platter) crash(s step, how crashing) wreck {
	if s.op == opWrite && how.torn != nil && p.knows(s) {
		n, _, _ := p.find(s.path)
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
		if s.op == opWrite && how.torn != nil && how.torn.IntN(3) == 0 {
			s.data = s.data[:how.torn.IntN(len(s.data))]
		}
		content = s.applied(content)
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
