package privatetest

import "net/http"

// heldAfter is how many bytes of an answer come before it is held.
const heldAfter = 4096

// Held is a path whose answers wait after their beginning. Those that are shorter do not.
type Held struct {
	// Begun has a value for each answer that waits, at least for the first.
	Begun chan struct{}

	registry *Registry
	path     string
	released chan struct{}
	cut      bool // set before released is closed
}

// Hold has the registry send the beginning of what a path has, and wait until Release or Cut is called.
func (r *Registry) Hold(path string) *Held {
	h := &Held{Begun: make(chan struct{}, 64), registry: r, path: path, released: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[path] = h
	return h
}

func (r *Registry) heldAt(path string) *Held {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[path]
}

// Release has the rest follow, also in later answers. Of Release and Cut, one is called, once.
func (h *Held) Release() { close(h.released) }

// Cut has the registry cut the connections that wait. Later answers are whole.
func (h *Held) Cut() {
	h.registry.mu.Lock()
	delete(h.registry.held, h.path)
	h.registry.mu.Unlock()
	h.cut = true
	h.Release()
}

// contentWriter notes the status of an answer, and waits where it is held.
type contentWriter struct {
	http.ResponseWriter
	status int
	sent   int
	held   *Held
	gone   <-chan struct{}
}

func (w *contentWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *contentWriter) Write(p []byte) (n int, err error) {
	if w.held != nil && w.sent+len(p) > heldAfter {
		n, err = w.ResponseWriter.Write(p[:max(heldAfter-w.sent, 0)])
		if err == nil {
			err = http.NewResponseController(w.ResponseWriter).Flush()
		}
		if err != nil {
			return n, err
		}
		p = p[n:]
		w.wait()
		w.held = nil
	}
	rest, err := w.ResponseWriter.Write(p)
	w.sent += n + rest
	return n + rest, err
}

func (w *contentWriter) wait() {
	select {
	case w.held.Begun <- struct{}{}:
	default:
	}
	select {
	case <-w.held.released:
		if w.held.cut {
			panic(http.ErrAbortHandler)
		}
	case <-w.gone:
		panic(http.ErrAbortHandler)
	}
}
