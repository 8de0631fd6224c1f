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

// diskModel follows the steps of a store and knows what is durable: the content of a file
// as of its last sync, and the names in a folder as of the last sync of the folder. It
// creates folders as a crash at a given step may leave them. It knows only what goes through
// package disk, so neither the index nor the lock.
type diskModel struct {
	dir string

	mu   sync.Mutex // guards what follows; locked during a step
	root *node
}

// node is a file or a folder.
type node struct {
	folder        bool
	names, synced map[string]*node // of a folder

	mode     fs.FileMode // this and what follows is of a file
	content  []byte
	durable  []byte
	unsynced []disk.Step // changes since durable
}

func newDiskModel(dir string) *diskModel { return &diskModel{dir: dir, root: newFolder()} }

func newFolder() *node {
	return &node{folder: true, names: make(map[string]*node), synced: make(map[string]*node)}
}

// around returns a function that takes a step. It first calls before, then does what fail
// says, and then updates the model.
func (p *diskModel) around(fail func(disk.Step) failure, before func(disk.Step)) func(disk.Step, func() error) error {
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

// take skips steps that only make a difference after a power cut, and the preallocation of
// the ballast: the tests open hundreds of stores.
func (p *diskModel) take(s disk.Step, take func() error) error {
	if s.Op == disk.OpSync || s.Op == disk.OpSyncDir || s.Op == disk.OpPreallocate && !p.knows(s) {
		return nil
	}
	return take()
}

// find returns a node, the names in its folder, and its own name.
func (p *diskModel) find(path string) (n *node, in map[string]*node, name string) {
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

// knows reports whether a step changes what the model contains.
func (p *diskModel) knows(s disk.Step) bool {
	l := disk.At(p.dir)
	return s.Path != l.Ballast() && !strings.HasPrefix(s.Path, l.Index()+".broken-") && s.Path != l.Index() && s.Path != p.dir
}

func (p *diskModel) note(s disk.Step) {
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

// modeOf returns the mode that FORMAT.md gives a new file.
func modeOf(path string) fs.FileMode {
	name := filepath.Base(path)
	if strings.HasPrefix(name, "put-") || name == filepath.Base(disk.At("").NewSnapshot()) {
		return 0o600
	}
	return 0o640
}

// change records a change of content that is not synced yet.
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

// leftover is what a crash leaves: files by their path below the folder, and nil for
// folders.
type leftover map[string]*leftoverFile

type leftoverFile struct {
	content []byte
	mode    fs.FileMode
}

// crashMode is how a machine crashes.
type crashMode struct {
	survives func() bool // called for each change that was not synced
	torn     *rand.Rand  // nil if each write survives whole or not at all
}

// crash returns the folder as a crash during the step s may leave it.
func (p *diskModel) crash(s disk.Step, how crashMode) leftover {
	if s.Op == disk.OpWrite && how.torn != nil && p.knows(s) {
		n, _, _ := p.find(s.Path)
		before := *n
		n.unsynced = slices.Clip(n.unsynced)
		n.change(s)
		defer func() { *n = before }()
	}
	w := make(leftover)
	how.leave(w, p.root, "")
	return w
}

func (how crashMode) leave(w leftover, folder *node, path string) {
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
			w[at] = &leftoverFile{how.left(n), n.mode}
		}
	}
}

// left returns the content of a file after the crash.
func (how crashMode) left(n *node) []byte {
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

// build creates the folder.
func (w leftover) build(dir string) error {
	if err := os.Mkdir(dir, 0o750); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(w)) { // folders before their files
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

// damage changes a file at rest, as a bad disk does.
func (p *diskModel) damage(path string, change func([]byte)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, _, _ := p.find(path)
	n.content = slices.Clone(n.content)
	change(n.content)
	n.durable = n.content
	return os.WriteFile(path, n.content, n.mode)
}
