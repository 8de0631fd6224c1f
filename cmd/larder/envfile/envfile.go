// Package envfile reads the files of systemd's EnvironmentFile=, so that a command sees the
// variables that the unit of the daemon has. The form is that of systemd.exec(5): one
// NAME=value a line, comments with # or ;, quotes as in a shell, and \ at the end of a line to
// go on with the next one. Nothing is expanded.
package envfile

import (
	"fmt"
	"regexp"
	"strings"
)

// Parse returns the variables of a file as NAME=value, in their order. Like systemd it leaves
// out lines that set no variable, or one with a zero byte; the error is for quotes that are not closed.
func Parse(text string) ([]string, error) {
	var all []string
	for s := (scanner{rest: text, line: 1}); s.rest != ""; {
		line := s.line
		switch {
		case s.skip(" \t\r\n"):
		case s.rest[0] == '#' || s.rest[0] == ';':
			s.comment()
		default:
			name := strings.TrimSpace(s.until("=\n"))
			if !s.skipOne('=') {
				continue
			}
			value, err := s.value()
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
			if variable.MatchString(name) && !strings.Contains(value, "\x00") {
				all = append(all, name+"="+value)
			}
		}
	}
	return all, nil
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// scanner is what is left of a file.
type scanner struct {
	rest string
	line int // of rest, from 1
}

func (s *scanner) take(n int) string {
	taken := s.rest[:n]
	s.rest = s.rest[n:]
	s.line += strings.Count(taken, "\n")
	return taken
}

// skip takes all characters of a set, and reports whether there was one.
func (s *scanner) skip(set string) bool {
	return s.take(len(s.rest)-len(strings.TrimLeft(s.rest, set))) != ""
}

func (s *scanner) skipOne(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.take(1)
	return true
}

// until takes everything before the first character of a set.
func (s *scanner) until(set string) string {
	if i := strings.IndexAny(s.rest, set); i >= 0 {
		return s.take(i)
	}
	return s.take(len(s.rest))
}

// comment takes the rest of the line. \ at its end continues a comment, too.
func (s *scanner) comment() {
	for strings.HasSuffix(s.until("\n"), `\`) && s.rest != "" {
		s.take(1)
	}
}

// value takes the value up to the end of the line. Space around it does not belong to it.
func (s *scanner) value() (string, error) {
	var value strings.Builder
	s.skip(" \t")
	kept := 0 // length of value without the space at its end
	for s.rest != "" {
		switch c := s.take(1)[0]; c {
		case '\n', '\r':
			return value.String()[:kept], nil
		case '\'', '"':
			if err := s.quoted(c, &value); err != nil {
				return "", err
			}
			kept = value.Len()
		case '\\':
			s.escaped(&value)
			kept = value.Len()
		case ' ', '\t':
			value.WriteByte(c)
		default:
			value.WriteByte(c)
			kept = value.Len()
		}
	}
	return value.String()[:kept], nil
}

// escaped takes the character after a \, which stands for itself; a new line for nothing.
func (s *scanner) escaped(to *strings.Builder) {
	if s.rest == "" {
		return
	}
	if c := s.take(1)[0]; c != '\n' {
		to.WriteByte(c)
	}
}

// quoted takes a text up to its closing quote. In double quotes \ escapes the characters that
// it escapes in a shell, and stands for itself before others.
func (s *scanner) quoted(quote byte, to *strings.Builder) error {
	for s.rest != "" {
		switch c := s.take(1)[0]; {
		case c == quote:
			return nil
		case c == '\\' && quote == '"' && s.rest != "" && strings.IndexByte("\"\\`$\n", s.rest[0]) >= 0:
			s.escaped(to)
		default:
			to.WriteByte(c)
		}
	}
	return fmt.Errorf("the quote %c is not closed", quote)
}
