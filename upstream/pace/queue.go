package pace

import (
	"slices"
)

// queue has the requests that wait for their turn. It is not safe for concurrent
// use.
type queue struct {
	waiting [priorities][]*waiter
	turns   int
}

// waiter is a request whose turn has not come.
type waiter struct {
	turn chan struct{} // closed when it has come, or will not come
	err  error         // why it will not come; set before turn is closed
}

// blobTurn is which turn in a row blobs get before manifests, so that a stream of
// manifests cannot hold them up.
const blobTurn = 4

func (q *queue) len() int { return q.ahead(priorities - 1) }

// ahead returns how many waiters go before a new one of priority p.
func (q *queue) ahead(p Priority) (n int) {
	for _, of := range q.waiting[:p+1] {
		n += len(of)
	}
	return n
}

func (q *queue) push(p Priority, w *waiter) { q.waiting[p] = append(q.waiting[p], w) }

// pop removes the waiter whose turn it is, and returns nil if there is none.
func (q *queue) pop() *waiter {
	order := [...]Priority{Manifests, Blobs, Unattended}
	if q.turns++; q.turns%blobTurn == 0 {
		order = [...]Priority{Blobs, Manifests, Unattended}
	}
	for _, p := range order {
		if of := q.waiting[p]; len(of) > 0 {
			first := of[0]
			q.waiting[p] = slices.Delete(of, 0, 1)
			return first
		}
	}
	return nil
}

// remove takes a waiter out, and reports whether it was there.
func (q *queue) remove(w *waiter) bool {
	for p, of := range q.waiting {
		if i := slices.Index(of, w); i >= 0 {
			q.waiting[p] = slices.Delete(of, i, i+1)
			return true
		}
	}
	return false
}

// failAll ends every wait with err.
func (q *queue) failAll(err error) {
	for p, of := range q.waiting {
		for _, w := range of {
			w.err = err
			close(w.turn)
		}
		q.waiting[p] = nil
	}
}
