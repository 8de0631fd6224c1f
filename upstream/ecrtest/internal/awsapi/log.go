package awsapi

import (
	"maps"
	"sync"
)

// Entry is a call that was made: to ECR's API or to STS.
type Entry struct {
	Principal string // ARN of the user or session that signed the call; empty if it was not signed
	Region    string // that the call was signed for
	Action    string // such as ecr:GetAuthorizationToken
}

// Log counts calls. Its zero value is empty. Its methods may be called by several
// goroutines at once.
type Log struct {
	mu    sync.Mutex // guards calls
	calls map[Entry]int
}

// Add counts a call.
func (l *Log) Add(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls == nil {
		l.calls = make(map[Entry]int)
	}
	l.calls[e]++
}

// Calls returns how often each call was made.
func (l *Log) Calls() map[Entry]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.calls)
}
