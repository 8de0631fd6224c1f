package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/larder-registry/larder/proxy/wholefile"
)

// A Change is what was done with one file.
type Change struct {
	Path string
	// Did is one of the constants below.
	Did string
}

// Values of Change.Did.
const (
	Wrote     = "wrote"
	Merged    = "put the mirror into"
	Replaced  = "replaced"
	Unchanged = "unchanged"
	Removed   = "removed"
	Restored  = "restored"
	Left      = "took the mirror out of"
)

// backupSuffix is appended to the name of a file that was there before. The backup is
// a hard link, so that the file is restored with its owner, mode and times.
const backupSuffix = ".before-larder"

// hostsFile is one registry's hosts.toml.
type hostsFile struct {
	dir, path string
	current   string // content now
	exists    bool
	want      string // content that it should have
	foreign   bool   // it has more than the mirror
	secret    bool   // it is to be read by its owner alone
	open      bool   // it can be read by others
}

// plan reads the file of each folder and computes its content. It leaves out the files that
// cannot be read or merged; the error joins what is wrong with each of them.
func plan(m Mirror, dir string) (files []hostsFile, err error) {
	for _, name := range m.folders() {
		f, problem := planFolder(m, filepath.Join(dir, folderName(dir, name)))
		if problem != nil {
			err = errors.Join(err, problem)
			continue
		}
		files = append(files, f)
	}
	return files, err
}

// problems returns the errors that plan has joined.
func problems(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var all []error
	for _, e := range joined.Unwrap() {
		if more := problems(e); more != nil {
			all = append(all, more...)
		} else {
			all = append(all, e)
		}
	}
	return all
}

// folderName returns the folder that containerd reads for a registry: the first of
// its candidates that exists (docs/hosts.md, "Registry Host Namespace").
func folderName(dir, registry string) string {
	host, port, ok := strings.Cut(registry, ":")
	if !ok {
		return registry
	}
	if other := host + "_" + port + "_"; isFolder(filepath.Join(dir, other)) {
		return other
	}
	return registry
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func planFolder(m Mirror, dir string) (hostsFile, error) {
	f := hostsFile{dir: dir, path: filepath.Join(dir, "hosts.toml"), secret: m.Authorization != ""}
	if info, err := os.Stat(f.path); err == nil {
		f.open = info.Mode().Perm()&0o077 != 0
	}
	text, err := os.ReadFile(f.path)
	switch {
	case err == nil:
		f.current, f.exists = string(text), true
	case !errors.Is(err, fs.ErrNotExist):
		return f, err
	}
	ours := strings.HasPrefix(f.current, newFileMark)
	if ours && !m.Only { // a file that --only has replaced comes back
		before, err := os.ReadFile(f.path + backupSuffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		if err == nil {
			f.foreign = true
			f.want, err = mergeInto(m, f.path, string(before))
			return f, err
		}
	}
	if !f.exists || ours || m.Only {
		f.foreign = f.exists && !ours
		certs, err := findCertificates(dir)
		if err != nil {
			return f, err
		}
		folderIsNew := !isFolder(dir) || strings.Contains(f.current, newFolderMark)
		f.want = m.newFile(folderIsNew, certs)
		return f, nil
	}
	original, _ := cut(f.current)
	f.foreign = true
	f.want, err = mergeInto(m, f.path, original)
	return f, err
}

// mergeInto is merge for the file at a path.
func mergeInto(m Mirror, path, original string) (string, error) {
	merged, err := merge(m, original)
	if err != nil {
		return "", fmt.Errorf("%s was not written by larder mirror, and the mirror cannot be inserted: %w", path, err)
	}
	return merged, nil
}

// Install writes a hosts.toml for each registry into dir, which is containerd's
// config_path. Existing files are kept; Larder is added as their first host, and a
// backup is made. With Only, the backup is replaced by a file that has Larder alone. Files that
// need no change are not touched. A file that cannot be
// merged or written does not stop the others; the error names each of them.
func Install(m Mirror, dir string) ([]Change, error) {
	if err := m.checkURL(); err != nil {
		return nil, err
	}
	files, err := plan(m, dir)
	var changes []Change
	for _, f := range files {
		did, failed := f.install()
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("write %s: %w", f.path, failed))
			continue
		}
		changes = append(changes, Change{f.path, did})
	}
	return changes, err
}

func (f hostsFile) install() (did string, err error) {
	if f.exists && f.current == f.want && (!f.secret || !f.open) {
		return Unchanged, nil
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return "", err
	}
	if err := f.backUp(); err != nil {
		return "", err
	}
	mode := fs.FileMode(publicFile)
	if f.secret {
		mode = secretFile
	}
	if err := wholefile.Write(f.path, []byte(f.want), mode); err != nil {
		return "", err
	}
	switch {
	case f.foreign && strings.HasPrefix(f.want, newFileMark):
		return Replaced, nil
	case f.foreign:
		return Merged, nil
	}
	return Wrote, nil
}

// backUp keeps a file that has more than the mirror under another name, before the mirror is in
// it. A backup from before is replaced: it was not restored, since the file had been changed or
// replaced. A file with the mirror keeps its backup, unless it has been edited since and is
// replaced.
func (f hostsFile) backUp() error {
	text, ours := cut(f.current)
	backup := f.path + backupSuffix
	switch {
	case !f.foreign:
		return nil
	case !ours:
		if err := os.Remove(backup); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Link(f.path, backup)
	case strings.HasPrefix(f.current, newFileMark), !strings.HasPrefix(f.want, newFileMark), isBackup(backup, text):
		return nil
	}
	return wholefile.Write(backup, []byte(text), publicFile)
}

// isBackup reports whether a file is the backup of a text from which the mirror was taken out.
func isBackup(path, text string) bool {
	before, err := os.ReadFile(path)
	return err == nil && (string(before) == text || string(before)+"\n" == text)
}

// The modes of files. Containerd runs as root.
const (
	publicFile = 0o644
	secretFile = 0o600
)

// Remove undoes [Install] for all registries in dir: it removes the files that
// Install created, and restores the files that it changed. Edits since then stay.
func Remove(dir string) ([]Change, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "hosts.toml"))
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, path := range paths {
		did, err := remove(path)
		if err != nil {
			return changes, fmt.Errorf("restore %s: %w", path, err)
		}
		if did != "" {
			changes = append(changes, Change{path, did})
		}
	}
	return changes, nil
}

func remove(path string) (did string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := string(raw)
	rest, ours := cut(text)
	switch {
	case !ours:
		return "", nil
	case strings.HasPrefix(text, newFileMark) && isFile(path+backupSuffix):
		return Restored, os.Rename(path+backupSuffix, path)
	case strings.HasPrefix(text, newFileMark):
		if err := os.Remove(path); err != nil {
			return "", err
		}
		if strings.Contains(text, newFolderMark) {
			_ = os.Remove(filepath.Dir(path)) // it stays if it has other files
		}
		return Removed, nil
	}
	if backup := path + backupSuffix; isBackup(backup, rest) {
		return Restored, os.Rename(backup, path)
	}
	return Left, wholefile.Write(path, []byte(rest), publicFile)
}
