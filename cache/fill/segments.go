package fill

import "slices"

// segment is a stretch [start,end) of a blob. Its first have bytes are on disk. At most
// one connection works on a segment, and writes it in order.
type segment struct {
	start, end int64
	have       int64
	active     bool    // a connection works on it
	by         *Source // of its bytes on disk; nil if an earlier process left them
}

func (s *segment) next() int64 { return s.start + s.have }
func (s *segment) done() bool  { return s.next() == s.end }
func (s *segment) idle() bool  { return !s.active && !s.done() }

// isForeign reports whether its bytes on disk are of another upstream.
func (s *segment) isForeign(upstream string) bool {
	return s.have > 0 && s.by != nil && s.by.Upstream != upstream
}

// isOfRealm reports whether its bytes on disk are known to be of a realm.
func (s *segment) isOfRealm(realm string) bool {
	return s.have == 0 || s.by != nil && s.by.realm() == realm
}

// segments covers a whole blob, in order and without gaps: the bytes on disk, those that
// connections fetch, and the missing bytes that no connection works on. It is plain data;
// Fill.mu guards it.
type segments struct {
	list []*segment
}

// newSegments covers a blob of size bytes of which nothing is on disk. An empty blob has
// no segments.
func newSegments(size int64) segments {
	if size == 0 {
		return segments{}
	}
	return segments{list: []*segment{{end: size}}}
}

// at returns the index of the segment that contains off, or -1.
func (s *segments) at(off int64) int {
	i, found := slices.BinarySearchFunc(s.list, off, func(seg *segment, off int64) int {
		switch {
		case seg.end <= off:
			return -1
		case seg.start > off:
			return 1
		}
		return 0
	})
	if !found {
		return -1
	}
	return i
}

// available returns how many bytes from off on are on disk without a gap.
func (s *segments) available(off int64) int64 {
	return s.availableOf(off, func(*segment) bool { return true })
}

// availableOf is available, up to a segment for which is returns false.
func (s *segments) availableOf(off int64, is func(*segment) bool) int64 {
	end := off
	for i := s.at(off); i >= 0 && i < len(s.list); i++ {
		seg := s.list[i]
		if seg.next() <= end || !is(seg) {
			break
		}
		end = seg.next()
		if !seg.done() {
			break
		}
	}
	return end - off
}

// hasForeign reports whether bytes on disk are of another upstream.
func (s *segments) hasForeign(upstream string) bool {
	return slices.ContainsFunc(s.list, func(seg *segment) bool { return seg.isForeign(upstream) })
}

// hasStrange reports whether bytes on disk are not known to be of a realm.
func (s *segments) hasStrange(realm string) bool {
	return slices.ContainsFunc(s.list, func(seg *segment) bool { return !seg.isOfRealm(realm) })
}

// behind returns how many bytes on disk end at off without a gap.
func (s *segments) behind(off int64) int64 {
	i := s.at(off)
	if i < 0 || s.list[i].next() != off && s.list[i].start != off {
		return 0
	}
	start := s.list[i].start
	for i > 0 && s.list[i-1].done() {
		i--
		start = s.list[i].start
	}
	return off - start
}

// claim gives up to n missing bytes from off on to a connection. It returns nil if a
// connection already fetches the byte at off, or it is on disk. A released segment that has
// bytes already is continued after them.
func (s *segments) claim(off, n int64) *segment {
	i := s.at(off)
	if i < 0 || !s.list[i].idle() {
		return nil
	}
	if start := s.list[i].next(); off < start {
		off = start
	}
	if s.list[i].next() < off || s.list[i].have > 0 {
		s.split(i, off)
		i++
	}
	if off+n < s.list[i].end {
		s.split(i, off+n)
	}
	s.list[i].active = true
	return s.list[i]
}

// attribute says which source brings the missing bytes of seg, on which a connection works.
// It returns the segment that has them: another one if seg has bytes of another source.
func (s *segments) attribute(seg *segment, by *Source) *segment {
	if seg.have > 0 && seg.by != by {
		seg.active = false
		rest := seg.end - seg.next()
		seg = s.claim(seg.next(), rest)
	}
	seg.by = by
	return seg
}

// split cuts segment i in two at off, which lies behind its bytes on disk.
func (s *segments) split(i int, off int64) {
	seg := s.list[i]
	s.list = slices.Insert(s.list, i+1, &segment{start: off, end: seg.end})
	seg.end = off
}

// firstIdle returns the offset of the first missing byte that no connection fetches, or -1.
func (s *segments) firstIdle() int64 {
	for _, seg := range s.list {
		if seg.idle() {
			return seg.next()
		}
	}
	return -1
}

// isIdle reports whether the byte at off is missing and no connection fetches it.
func (s *segments) isIdle(off int64) bool {
	i := s.at(off)
	return i >= 0 && s.list[i].idle() && s.list[i].next() <= off
}

// extend adds to seg all missing bytes behind it that no connection fetches: its connection
// delivers the rest of the blob whether it is asked for or not.
func (s *segments) extend(seg *segment) {
	i := s.at(seg.start)
	for i+1 < len(s.list) && s.list[i+1].idle() && s.list[i+1].have == 0 {
		seg.end = s.list[i+1].end
		s.list = slices.Delete(s.list, i+1, i+2)
	}
}

// release ends a connection's work on seg, done or not. It joins neighbours that are alike,
// so that the list stays short.
func (s *segments) release(seg *segment) {
	seg.active = false
	i := s.at(seg.start)
	if i > 0 && s.join(i-1) {
		i--
	}
	s.join(i)
}

// join merges segment i with the next one if both are done, or both are idle and have no
// bytes, and reports whether it did.
func (s *segments) join(i int) bool {
	if i+1 >= len(s.list) {
		return false
	}
	a, b := s.list[i], s.list[i+1]
	bothDone := a.done() && b.done() && !a.active && !b.active && a.by == b.by
	bothNew := a.idle() && b.idle() && a.have == 0 && b.have == 0
	if !bothDone && !bothNew {
		return false
	}
	a.end = b.end
	a.have += b.have
	s.list = slices.Delete(s.list, i+1, i+2)
	return true
}

// broughtBy is how many bytes on disk a source has brought.
func (s *segments) broughtBy(source *Source) (n int64) {
	for _, seg := range s.list {
		if seg.by == source {
			n += seg.have
		}
	}
	return n
}

// have is how many bytes are on disk.
func (s *segments) have() (n int64) {
	for _, seg := range s.list {
		n += seg.have
	}
	return n
}
