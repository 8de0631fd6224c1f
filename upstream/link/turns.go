package link

import "slices"

// turn is one wait for a turn.
type turn struct {
	client string
	most   int      // bytes
	begins chan int // gets the bytes of the turn when it begins; capacity 1
}

// turns are the waits of a class, in which the clients have their turns one after the other.
// They belong to a queue.
type turns struct {
	clients []*queued // those that wait, and the one that had the last turn, in the order of their next turns
}

// queued is the waits of one client.
type queued struct {
	client string
	waits  []*turn
}

func (t *turns) add(w *turn) {
	for _, c := range t.clients {
		if c.client == w.client {
			c.waits = append(c.waits, w)
			return
		}
	}
	t.clients = append(t.clients, &queued{w.client, []*turn{w}})
}

// first returns the next wait, or nil if there is none.
func (t *turns) first() *turn {
	for _, c := range t.clients {
		if len(c.waits) > 0 {
			return c.waits[0]
		}
	}
	return nil
}

// take takes out what first returns, and puts its client behind all others. Clients that do not
// wait lose their places.
func (t *turns) take() {
	t.clients = slices.DeleteFunc(t.clients, func(c *queued) bool { return len(c.waits) == 0 })
	c := t.clients[0]
	c.waits = c.waits[1:]
	t.clients = append(t.clients[1:], c)
}

// remove takes a wait out, and reports whether it was there.
func (t *turns) remove(w *turn) bool {
	for _, c := range t.clients {
		if i := slices.Index(c.waits, w); i >= 0 {
			c.waits = slices.Delete(c.waits, i, i+1)
			return true
		}
	}
	return false
}
