package cache

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxSized bounds how many values a sized remembers.
const maxSized = 16 << 10

// sized remembers the values that were used last, within bounds on how many they are and how many bytes they take.
// It is safe for concurrent use.
type sized[K comparable, V any] struct {
	most int

	mu    sync.Mutex // guards what follows
	list  *simplelru.LRU[K, sizedValue[V]]
	bytes int
}

type sizedValue[V any] struct {
	value V
	bytes int
}

func newSized[K comparable, V any](most int) *sized[K, V] {
	s := &sized[K, V]{most: most}
	list, err := simplelru.NewLRU(maxSized, func(_ K, v sizedValue[V]) { s.bytes -= v.bytes })
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	s.list = list
	return s
}

// add remembers a value that takes some bytes, and forgets as many others as it needs. One
// that is larger than the bound is not remembered, nor is an earlier one of the same key.
func (s *sized[K, V]) add(key K, value V, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list.Remove(key)
	if bytes > s.most {
		return
	}
	s.list.Add(key, sizedValue[V]{value, bytes})
	for s.bytes += bytes; s.bytes > s.most; {
		s.list.RemoveOldest()
	}
}

func (s *sized[K, V]) get(key K) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.list.Get(key)
	return v.value, ok
}

func (s *sized[K, V]) remove(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list.Remove(key)
}
