package peer

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxExchanges bounds the nodes of which it is known what was given to them and taken from them.
const maxExchanges = 4096

// Exchange is how many bytes of content this node has given to another one, and taken from it.
type Exchange struct {
	Address      string
	Given, Taken int64
}

// ledger counts what is given to each node and taken from it. It is safe for concurrent use.
type ledger struct {
	mu   sync.Mutex // guards what follows
	list *simplelru.LRU[string, *account]
}

// account is one node's. Its counts go on when the ledger has forgotten it.
type account struct{ given, taken atomic.Int64 }

func newLedger() *ledger {
	list, err := simplelru.NewLRU[string, *account](maxExchanges, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &ledger{list: list}
}

// of returns the account of the node at an address.
func (l *ledger) of(address string) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.list.Get(address)
	if !ok {
		a = new(account)
		l.list.Add(address, a)
	}
	return a
}

// all returns what was exchanged with the nodes that are remembered.
func (l *ledger) all() []Exchange {
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []Exchange
	for _, address := range l.list.Keys() {
		a, _ := l.list.Peek(address)
		if e := (Exchange{Address: address, Given: a.given.Load(), Taken: a.taken.Load()}); e.Given > 0 || e.Taken > 0 {
			some = append(some, e)
		}
	}
	return some
}
