package name

import "strings"

// Covers reports whether p matches all that q matches. It may miss that for patterns with several
// stars in one label or element.
func (p Pattern) Covers(q Pattern) bool {
	return p.Host.covers(q.Host) && p.Repository.covers(q.Repository)
}

// Overlaps reports whether p and q match a repository in common, as far as their text tells: hosts
// that look like ECR's may be none.
func (p Pattern) Overlaps(q Pattern) bool {
	return p.Host.Overlaps(q.Host) && p.Repository.Overlaps(q.Repository)
}

func (p HostPattern) covers(q HostPattern) bool {
	switch {
	case p == AnyHost || p == q:
		return true
	case q == AnyHost || !p.HasStar():
		return false
	case !q.HasStar():
		return p.Match(string(q))
	}
	ps, qs := strings.Split(string(p), "."), strings.Split(string(q), ".")
	if len(ps) != len(qs) {
		return false
	}
	for i := range ps {
		if !glob(ps[i], qs[i], 1) { // a star of q is a character that only a star of p matches
			return false
		}
	}
	return true
}

// Overlaps reports whether p and q match a host in common, as far as their text tells.
func (p HostPattern) Overlaps(q HostPattern) bool {
	switch {
	case p == AnyHost || q == AnyHost:
		return true
	case !q.HasStar():
		return p.Match(string(q))
	case !p.HasStar():
		return q.Match(string(p))
	}
	ps, qs := strings.Split(string(p), "."), strings.Split(string(q), ".")
	if len(ps) != len(qs) {
		return false
	}
	for i := range ps {
		if !globsOverlap(strings.ReplaceAll(ps[i], "*", "?*"), strings.ReplaceAll(qs[i], "*", "?*")) {
			return false
		}
	}
	return true
}

func (p RepositoryPattern) covers(q RepositoryPattern) bool {
	for ps, qs := string(p), string(q); ; {
		switch {
		case ps == "*":
			return true
		case qs == "*":
			return false
		}
		var pe, qe string
		var pMore, qMore bool
		pe, ps, pMore = strings.Cut(ps, "/")
		qe, qs, qMore = strings.Cut(qs, "/")
		if pMore != qMore || !Glob(pe, qe) {
			return false
		}
		if !pMore {
			return true
		}
	}
}

// Overlaps reports whether p and q match a repository in common.
func (p RepositoryPattern) Overlaps(q RepositoryPattern) bool {
	for ps, qs := string(p), string(q); ; {
		if ps == "*" || qs == "*" {
			return true
		}
		var pe, qe string
		var pMore, qMore bool
		pe, ps, pMore = strings.Cut(ps, "/")
		qe, qs, qMore = strings.Cut(qs, "/")
		if pMore != qMore || !globsOverlap(pe, qe) {
			return false
		}
		if !pMore {
			return true
		}
	}
}

// globsOverlap reports whether two texts, in which a star stands for any text and a question mark
// for one character, match a text in common. It takes time in proportion to the product of their
// lengths.
func globsOverlap(p, q string) bool {
	const star = '*'
	below := make([]bool, len(q)+1) // whether p[i+1:] and q[j:] overlap
	for i := len(p); i >= 0; i-- {
		row := make([]bool, len(q)+1)
		for j := len(q); j >= 0; j-- {
			switch {
			case i == len(p) && j == len(q):
				row[j] = true
			case j < len(q) && q[j] == star:
				row[j] = row[j+1] || i < len(p) && below[j]
			case i == len(p):
			case p[i] == star:
				row[j] = below[j] || j < len(q) && row[j+1]
			case j < len(q):
				row[j] = (p[i] == q[j] || p[i] == '?' || q[j] == '?') && below[j+1]
			}
		}
		below = row
	}
	return below[0]
}
