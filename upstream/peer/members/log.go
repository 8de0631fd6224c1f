package members

import (
	"bytes"
	"log"
	"log/slog"
)

// logger passes memberlist's log on at level debug: its errors are about other nodes, and a stranger
// can cause any number of them.
func logger(to *slog.Logger) *log.Logger { return log.New(lines{to}, "", 0) }

type lines struct{ log *slog.Logger }

// Write is for io.Writer.
func (l lines) Write(line []byte) (int, error) {
	_, text, found := bytes.Cut(bytes.TrimSpace(line), []byte("memberlist: "))
	if !found {
		text = bytes.TrimSpace(line)
	}
	l.log.Debug("gossip between peers", "event", string(text))
	return len(line), nil
}
