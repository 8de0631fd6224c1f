package records

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// badgerOptions tunes Badger for a node: it takes some megabytes of memory and
// of disk, where its defaults are made for servers. Writes are not synced one by
// one: a power cut may lose the latest records, which costs one question to the
// upstream each.
func badgerOptions(dir string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithBypassLockGuard(true). // the folder above has a lock
		WithMemTableSize(4 << 20).
		WithNumMemtables(2).
		WithBaseTableSize(1 << 20).
		WithBaseLevelSize(4 << 20).
		WithValueLogFileSize(16 << 20).
		WithValueThreshold(512 << 10). // values are in the tables, which have checksums
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithBlockCacheSize(0).
		WithIndexCacheSize(2 << 20).
		WithCompression(0).
		WithMetricsEnabled(false).
		WithDetectConflicts(false)
}

// bulkOptions are for loadNew. The stream writer keeps two tables of the largest
// size in memory for each kind of record, so all levels get the smallest size.
func bulkOptions(dir string, log *slog.Logger) badger.Options {
	opts := badgerOptions(dir, log)
	opts.TableSizeMultiplier = 1
	return opts
}

// logPattern matches the logs of records that are in no table yet.
const logPattern = "*.mem"

// openBadger turns a panic of Badger into an error: it panics over some damage
// of its files.
func openBadger(opts badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%v", r)
		}
	}()
	return badger.Open(opts)
}

// badgerLog hands Badger's log on. Its informational messages become debug
// messages: they do not help the operator of a cache.
type badgerLog struct{ log *slog.Logger }

// Errorf logs an error.
func (l badgerLog) Errorf(f string, a ...any) { l.print(slog.LevelError, f, a) }

// Warningf logs a warning.
func (l badgerLog) Warningf(f string, a ...any) { l.print(slog.LevelWarn, f, a) }

// Infof logs for debugging.
func (l badgerLog) Infof(f string, a ...any) { l.print(slog.LevelDebug, f, a) }

// Debugf logs nothing.
func (l badgerLog) Debugf(string, ...any) {}

func (l badgerLog) print(level slog.Level, format string, args []any) {
	l.log.Log(context.Background(), level, "index: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
}
