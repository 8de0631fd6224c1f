package records

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"

	"github.com/larder-registry/larder/cache/disk"
)

// checkFiles reads the files of a database and fails if one is damaged. Badger
// itself accepts some damage silently, such as a missing list of tables. It ends
// the process over other damage, from a goroutine of its own. And it never ends
// the goroutines that it started before it found the damage.
func checkFiles(opts badger.Options) error {
	if err := checkKinds(opts.Dir); err != nil {
		return err
	}
	tables, err := listTables(opts)
	if err != nil {
		return fmt.Errorf("read the list of its tables: %w", err)
	}
	for _, id := range tables { // Badger removes others: a crash left them
		if err := checkTable(table.NewFilename(id, opts.Dir)); err != nil {
			return fmt.Errorf("check table %d: %w", id, err)
		}
	}
	keys, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: opts.Dir, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("check its keys: %w", err)
	}
	return errors.Join(keys.Close(), checkLogs(opts.Dir))
}

// checkKinds fails if there is anything but files: to open a pipe may take for ever.
func checkKinds(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !e.Type().IsRegular() {
			err = errors.Join(err, fmt.Errorf("%s is no file", e.Name()))
		}
	}
	return err
}

// listTables returns the numbers of the tables of a database.
func listTables(opts badger.Options) ([]uint64, error) {
	list, _, err := disk.OpenRegular(filepath.Join(opts.Dir, badger.ManifestFilename), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	tables, _, err := badger.ReplayManifestFile(list, opts.ExternalMagicVersion, opts)
	return slices.Collect(maps.Keys(tables.Tables)), err
}

// checkLogs checks the beginning of each log: the number of the key that it is
// encrypted with, which is 0. Badger makes no empty log.
func checkLogs(dir string) error {
	var logs []string
	for _, pattern := range []string{logPattern, "*.vlog"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		logs = append(logs, paths...)
	}
	for _, path := range logs {
		f, _, err := disk.OpenRegular(path, os.O_RDONLY)
		if err != nil {
			return err
		}
		key := make([]byte, 8)
		n, _ := f.ReadAt(key, 0) // Badger empties a log that is shorter
		if err := f.Close(); err != nil {
			return err
		}
		if n == 0 || !bytes.Equal(key, make([]byte, 8)) {
			return fmt.Errorf("log %s is damaged", filepath.Base(path))
		}
	}
	return nil
}

func checkTable(path string) (err error) {
	f, _, err := disk.OpenRegular(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			problem, _, _ := strings.Cut(fmt.Sprint(r), "\n")
			err = fmt.Errorf("it is damaged: %s", problem)
		}
	}()
	id, _ := table.ParseFileID(filepath.Base(path))
	t, err := table.OpenInMemoryTable(raw, id, &table.Options{ChkMode: options.OnBlockRead})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}
