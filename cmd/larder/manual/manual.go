// Package manual writes larder's manual page. It is pure, and the page has no date, so that a page of the same
// commands is always the same.
package manual

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Page returns the page of a model's commands that are not hidden, for section 1, in the macros of man(7). Version is that of
// larder.
func Page(model *kong.Application, version string) string {
	p := new(page)
	p.macro("TH", strings.ToUpper(model.Name), "1", "", model.Name+" "+version, "User Commands")
	p.macro("SH", "NAME")
	p.text(model.Name + " - " + strings.TrimSuffix(model.Help, "."))
	p.macro("SH", "SYNOPSIS")
	p.line(bold(model.Name) + " " + italic("command") + " [" + italic("flags") + "] [" + italic("arguments") + "]")
	p.macro("SH", "OPTIONS")
	p.flags(model.Flags)
	p.macro("SH", "COMMANDS")
	p.commands(model.Node)
	p.macro("SH", "EXIT STATUS")
	p.item(bold("0"), "It is done.")
	p.item(bold("1"), "It failed; standard error says why.")
	p.item(bold("2"), "Wrong usage: an unknown flag, command or value.")
	p.macro("SH", "FILES")
	p.item(italic("/etc/larder/larder.yaml"), "The configuration, if no other one is named with --config or $LARDER_CONFIG.")
	p.item(italic("/var/lib/larder"), "The cache of the packaged service, with the socket on which it answers these commands.")
	p.item(italic("/usr/share/doc/larder"), "What else there is to read.")
	return p.String()
}

// page is a page that is being written.
type page struct{ strings.Builder }

// commands writes the commands below a node, those that have commands of their own by these.
func (p *page) commands(node *kong.Node) {
	for _, c := range node.Children {
		switch {
		case c.Hidden:
			continue
		case len(c.Children) > 0:
			p.commands(c)
			continue
		}
		p.macro("SS", "larder "+c.Summary())
		p.text(c.Help)
		if c.Detail != "" {
			p.macro("PP")
			p.detail(c.Detail)
		}
		for _, a := range c.Positional {
			p.item(italic(a.Summary()), a.Help)
		}
		p.flags(c.Flags)
	}
}

func (p *page) flags(flags []*kong.Flag) {
	for _, f := range flags {
		if !f.Hidden {
			p.item(bold(summary(f)), f.Help)
		}
	}
}

// summary is a flag as it is typed: "-o, --output=FILE".
func summary(f *kong.Flag) string {
	if f.Short == 0 {
		return f.Summary()
	}
	return fmt.Sprintf("-%c, %s", f.Short, f.Summary())
}

// detail writes paragraphs. Indented ones are examples, and keep their lines.
func (p *page) detail(text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			p.macro("PP")
		}
		if !strings.HasPrefix(paragraph, "    ") {
			p.text(paragraph)
			continue
		}
		p.macro("RS", "4")
		p.macro("nf")
		for line := range strings.Lines(paragraph) {
			p.line(escape(strings.TrimSpace(line)))
		}
		p.macro("fi")
		p.macro("RE")
	}
}

func (p *page) item(term, text string) {
	p.macro("TP")
	p.line(term)
	p.text(text)
}

// macro writes a request with its arguments.
func (p *page) macro(name string, args ...string) {
	fmt.Fprintf(p, ".%s", name)
	for _, arg := range args {
		fmt.Fprintf(p, ` "%s"`, strings.ReplaceAll(escape(arg), `"`, `\(dq`))
	}
	p.WriteByte('\n')
}

// text writes text whose lines may be filled.
func (p *page) text(text string) { p.line(escape(strings.Join(strings.Fields(text), " "))) }

// line writes a line that is escaped already. Lines that begin with a dot or a quote would be requests.
func (p *page) line(text string) {
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	p.WriteString(text + "\n")
}

// escape keeps roff from reading text as its own: a hyphen is the character that users type.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
}

func bold(text string) string   { return `\fB` + escape(text) + `\fP` }
func italic(text string) string { return `\fI` + escape(text) + `\fP` }
