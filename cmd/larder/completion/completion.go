package completion

import (
	"bytes"
	"embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/alecthomas/kong"
)

// Shells returns the shells that [Script] knows.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

//go:embed bash.tmpl zsh.tmpl fish.tmpl
var templates embed.FS

// Script returns the script for a shell. It completes the commands of a model that are not hidden.
func Script(model *kong.Application, shell string) (string, error) {
	if !slices.Contains(Shells(), shell) {
		return "", fmt.Errorf("%q is not a shell that can be completed: expected %s", shell, strings.Join(Shells(), ", "))
	}
	functions := template.FuncMap{
		"quote": quote, "words": words, "flags": flags, "zsh": zshEscape, "isFor": isFor,
		"join":  func(values []string) string { return strings.Join(values, " ") },
		"ident": func(path string) string { return strings.ReplaceAll(path, " ", "_") },
		"space": func(text string) string { return strings.TrimSuffix(" "+text, " ") },
	}
	t, err := template.New(shell+".tmpl").Funcs(functions).ParseFS(templates, shell+".tmpl")
	if err != nil {
		return "", fmt.Errorf("read the template for %s: %w", shell, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, commandsOf(model)); err != nil {
		return "", fmt.Errorf("write the script for %s: %w", shell, err)
	}
	return out.String(), nil
}

// command is a command as the templates see it. The first one is larder itself.
type command struct {
	Path     string // "access ls"; "" for larder itself
	Parent   string // "access"; "" for commands of larder itself
	Name     string // "ls"
	Help     string // one line
	Commands []string
	Flags    []option
	Values   []string // of its first argument, if it knows them
}

// option is a flag.
type option struct {
	Name   string // without dashes
	Short  string // one letter, or ""
	Help   string // one line
	Value  bool   // a value follows
	File   bool   // the value is a file or a folder
	Values []string
}

// commandsOf returns larder itself and all commands below it.
func commandsOf(model *kong.Application) []command {
	var all []command
	var visit func(node *kong.Node, path []string)
	visit = func(node *kong.Node, path []string) {
		c := command{Path: strings.Join(path, " "), Help: line(node.Help)}
		if len(path) > 0 {
			c.Name, c.Parent = node.Name, strings.Join(path[:len(path)-1], " ")
		}
		for _, group := range node.AllFlags(true) {
			for _, f := range group {
				c.Flags = append(c.Flags, optionOf(f))
			}
		}
		for _, p := range node.Positional {
			c.Values = enum(p)
			break
		}
		for _, child := range node.Children {
			if !child.Hidden {
				c.Commands = append(c.Commands, child.Name)
			}
		}
		all = append(all, c)
		for _, child := range node.Children {
			if !child.Hidden {
				visit(child, append(slices.Clone(path), child.Name))
			}
		}
	}
	visit(model.Node, nil)
	return all
}

func optionOf(f *kong.Flag) option {
	o := option{Name: f.Name, Help: line(f.Help), Value: !f.IsBool() && !f.IsCounter(), Values: enum(f.Value)}
	if f.Short != 0 {
		o.Short = string(f.Short)
	}
	switch f.Tag.Type {
	case "path", "existingfile", "existingdir", "existingpath":
		o.File = true
	}
	return o
}

func enum(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

// line returns the first sentence of a help text, on one line.
func line(help string) string {
	text := strings.Join(strings.Fields(help), " ")
	if i := strings.Index(text, ". "); i >= 0 {
		text = text[:i]
	}
	return strings.TrimSuffix(text, ".")
}

// quote quotes text for a POSIX shell and fish.
func quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `'\''`).Replace(text) + "'"
}

// zshEscape escapes what is special in a specification of zsh's _arguments.
func zshEscape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`, "'", "’", "`", "").Replace(text)
}

// words are what can follow a command beside its flags.
func words(c command) []string { return append(slices.Clone(c.Commands), c.Values...) }

// flags are the flags of a command, as they are typed.
func flags(c command) []string {
	var all []string
	for _, f := range c.Flags {
		all = append(all, "--"+f.Name)
	}
	return all
}

// isFor reports whether a command is directly below another one.
func isFor(c command, path string) bool { return c.Path != "" && c.Parent == path }
