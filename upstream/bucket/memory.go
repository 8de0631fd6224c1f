package bucket

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// memory remembers values for some time each. It is bounded: the oldest are forgotten first. It is safe for
// concurrent use.
type memory[K comparable, V any] struct {
	mu   sync.Mutex // guards what follows
	list *simplelru.LRU[K, remembered[V]]
}

type remembered[V any] struct {
	value V
	until time.Time
}

func newMemory[K comparable, V any](size int) *memory[K, V] {
	list, err := simplelru.NewLRU[K, remembered[V]](size, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &memory[K, V]{list: list}
}

func (m *memory[K, V]) add(key K, value V, keep time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list.Add(key, remembered[V]{value, time.Now().Add(keep)})
}

func (m *memory[K, V]) get(key K) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.list.Get(key)
	if !ok || !time.Now().Before(known.until) {
		return value, false
	}
	return known.value, true
}

func (m *memory[K, V]) has(key K) bool {
	_, ok := m.get(key)
	return ok
}

// take returns a value and forgets it.
func (m *memory[K, V]) take(key K) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.list.Peek(key)
	m.list.Remove(key)
	if !ok || !time.Now().Before(known.until) {
		return value, false
	}
	return known.value, true
}

func (m *memory[K, V]) purge() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list.Purge()
}
