package config

import "strings"

// report has the mistakes of one configuration, and where its keys are.
type report struct {
	file     string           // the configuration file; "" if there is none
	places   map[string]place // where each key was last given
	failed   map[string]bool  // keys with a mistake; checks do not report more about them
	mistakes Mistakes
	warnings Mistakes // of what is valid, but hardly meant
}

// place is a line of the file; or the source of an override, with line 0.
type place struct {
	file string
	line int
}

func newReport(file string) *report {
	return &report{file: file, places: make(map[string]place), failed: make(map[string]bool)}
}

// add reports a mistake at a place.
func (r *report) add(at place, key, problem string) {
	r.failed[key] = true
	r.mistakes = append(r.mistakes, Mistake{File: at.file, Line: at.line, Key: key, Problem: problem})
}

// reject reports a mistake about a key, unless there is one already.
func (r *report) reject(key, problem string) {
	if !r.failed[key] {
		r.add(r.where(key), key, problem)
	}
}

// warn reports that a valid value is hardly what was meant, unless there is a mistake in it.
func (r *report) warn(key, problem string) {
	if at := r.where(key); !r.failed[key] {
		r.warnings = append(r.warnings, Mistake{File: at.file, Line: at.line, Key: key, Problem: problem})
	}
}

// where returns the place of a key. A key that was not given has the place of the
// section around it.
func (r *report) where(key string) place {
	at, ok := r.places[key]
	for around := key; !ok && around != ""; at, ok = r.places[around] {
		around = around[:max(strings.LastIndexAny(around, ".["), 0)]
	}
	if !ok {
		at = place{file: r.file}
	}
	return at
}
