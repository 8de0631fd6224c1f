package daemon

import (
	"log"
	"log/slog"
	"strings"

	"github.com/larder-registry/larder/upstream/redact"
)

// TakeOverStandardLog has lines that libraries write with package log go to the debug level of
// to, until restore is called. Package log writes to standard error itself: it would wait for a
// reader of the log, and show responses of servers that net/http quotes.
func TakeOverStandardLog(to *slog.Logger) (restore func()) {
	out, flags, prefix := log.Writer(), log.Flags(), log.Prefix()
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(libraryLog{to})
	return func() {
		log.SetOutput(out)
		log.SetFlags(flags)
		log.SetPrefix(prefix)
	}
}

// libraryLog is the output of package log. Each write is a line.
type libraryLog struct{ to *slog.Logger }

// maxLibraryLine bounds a line of a library, in bytes.
const maxLibraryLine = 1 << 10

func (l libraryLog) Write(line []byte) (int, error) {
	// net/http quotes a response that came without a request. It may repeat the credentials of an earlier one.
	text, _, _ := strings.Cut(string(line), " starting with ")
	text = redact.Secrets(nil).Text(strings.TrimSpace(text))
	if len(text) > maxLibraryLine {
		text = strings.ToValidUTF8(text[:maxLibraryLine], "") + "…"
	}
	l.to.Debug(text, "from", "a library")
	return len(line), nil
}
