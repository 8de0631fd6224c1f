package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream/name"
)

// lsCommand is "larder ls".
type lsCommand struct {
	folder
	All     bool   `short:"a" help:"Also images of which the cache has nothing but the name, since their content was evicted."`
	Sort    string `enum:"name,size,used" default:"name" help:"Order: by name; by size, the largest first; or by last use, the latest first. Default: name." placeholder:"ORDER"`
	Quiet   bool   `short:"q" help:"Only names."`
	Expired bool   `help:"Only images that a lifecycle rule has expired."`
	Policy  bool   `help:"Show what the policy has decided about each image, instead of its lifecycle."`
	JSON    bool   `name:"json" help:"Print everything that is known about each image, as a JSON array."`
	Pattern string `arg:"" optional:"" help:"Only images whose whole name matches. The name is <host>/<repository>:<tag>, or @<digest> for an image without a tag. * stands for any text, slashes too; ? for one character; [a-z] for one of these."`
}

// Help is what kong shows below the usage.
func (*lsCommand) Help() string {
	return "Examples:\n\n" +
		"    larder ls --sort size\n" +
		"    larder ls '*/team/*:v1*'\n" +
		"    larder ls -q --expired | xargs -r larder rm"
}

// Run lists the images that match.
func (c *lsCommand) Run(p *invocation) error {
	pattern, err := name.ParseImagePattern(cmp.Or(c.Pattern, "*"))
	if err != nil {
		return usageError{fmt.Errorf("pattern %q: %w", c.Pattern, err)}
	}
	return c.with(p, func(client *client) error {
		var images []cache.ImageInfo
		if err := client.do(p.ctx, http.MethodGet, "images", nil, &images); err != nil {
			return err
		}
		kept := client.kept(p.ctx)
		images = append(images, notCached(images, kept)...)
		images = slices.DeleteFunc(images, func(img cache.ImageInfo) bool {
			return !pattern.Match(img.Name()) || c.Expired && img.Expired == nil
		})
		decided := client.decided(p.ctx)
		hidden := len(images)
		if !c.All {
			images = slices.DeleteFunc(images, isEmpty)
		}
		hidden -= len(images)
		c.order(images)
		switch {
		case c.JSON:
			return printJSON(p.stdout, withKept(images, kept, decided))
		case c.Quiet:
			return printNames(p.stdout, images)
		}
		t := table{spare: "DIGEST"}
		last, lastOf := "LIFECYCLE", lifecycleOf
		if c.Policy {
			last, lastOf = "POLICY", decided.of
		}
		t.add("IMAGE", "DIGEST", "SIZE", "USED", "STATE", last)
		for _, img := range images {
			t.add(rowName(img), shortDigest(img.Digest), format.Size(img.Bytes), age(img.Used), state(img)+keptState(kept[img.Name()]), lastOf(img))
		}
		if err := t.write(p.stdout, terminalWidth(p.stdout)); err != nil {
			return err
		}
		return c.sum(p, client, len(images), hidden)
	})
}

// kept returns the images that the daemon keeps, by their names: none without a daemon, or from
// one of an earlier release.
func (c *client) kept(ctx context.Context) map[string]*keep.Status {
	var all []*keep.Status
	if c.alone || c.do(ctx, http.MethodGet, "keep", nil, &all) != nil {
		return nil
	}
	kept := make(map[string]*keep.Status)
	for _, s := range all {
		kept[s.Image] = s
	}
	return kept
}

// notCached returns the images that are kept and that the cache does not list, by name.
func notCached(images []cache.ImageInfo, kept map[string]*keep.Status) []cache.ImageInfo {
	missing := maps.Clone(kept)
	for _, img := range images {
		delete(missing, img.Name())
	}
	var all []cache.ImageInfo
	for _, image := range slices.Sorted(maps.Keys(missing)) {
		if img, err := name.ParseImage(image); err == nil {
			all = append(all, cache.ImageInfo{Upstream: img.Host, Repository: img.Repository, Tag: img.Tag, Digest: img.Digest, Pinned: true})
		}
	}
	return all
}

// listed is an image as --json prints it.
type listed struct {
	cache.ImageInfo
	Keep   *keep.Status     `json:"keep,omitempty"`   // nil if the image is not kept
	Policy *policy.Decision `json:"policy,omitempty"` // nil if no rule has decided about it
}

func withKept(images []cache.ImageInfo, kept map[string]*keep.Status, decided decisions) []listed {
	all := []listed{}
	for _, img := range images {
		all = append(all, listed{img, kept[img.Name()], decided[img.Upstream+"/"+img.Repository+"@"+img.Digest.String()]})
	}
	return all
}

// decisions are those of the policy, by the image's name with its digest.
type decisions map[string]*policy.Decision

// decided returns what the policy has decided: nothing without a daemon, or from one of an earlier
// release.
func (c *client) decided(ctx context.Context) decisions {
	var all []*policy.Decision
	if c.alone || c.do(ctx, http.MethodGet, "policy", nil, &all) != nil {
		return nil
	}
	decided := make(decisions)
	for _, d := range all {
		decided[d.Host+"/"+d.Repository+"@"+d.Digest.String()] = d
	}
	return decided
}

// of says what the policy has decided about an image.
func (ds decisions) of(img cache.ImageInfo) string {
	d := ds[img.Upstream+"/"+img.Repository+"@"+img.Digest.String()]
	if d == nil {
		return nothing
	}
	return resultOf(d)
}

// resultOf is the result of a decision, for people.
func resultOf(d *policy.Decision) string {
	switch {
	case d.Exempt:
		return "exempt"
	case d.Result == policy.Refused && d.Mode == policy.Warn:
		return "would be refused (warn)"
	}
	return fmt.Sprintf("%s (%s)", d.Result, d.Mode)
}

// keptState is what follows the state of an image that is kept; nil for others.
func keptState(s *keep.Status) string {
	if s == nil {
		return ""
	}
	text := ", kept"
	switch s.State {
	case keep.Old:
		text += " until the new one is complete"
	case keep.TooLarge:
		text += "; the new one does not fit"
	case keep.Gone:
		text += "; gone upstream"
	case keep.Whole, keep.Missing, keep.Unknown:
	}
	if s.Total > 0 {
		text += fmt.Sprintf(" (%.0f%%)", 100*float64(s.Done)/float64(s.Total))
	}
	return text
}

// isEmpty reports whether nothing is cached of an image that nothing promises to keep.
func isEmpty(img cache.ImageInfo) bool { return img.Bytes == 0 && !img.Pinned }

// order sorts images, which are sorted by name.
func (c *lsCommand) order(images []cache.ImageInfo) {
	switch c.Sort {
	case "size":
		slices.SortStableFunc(images, func(a, b cache.ImageInfo) int { return cmp.Compare(b.Bytes, a.Bytes) })
	case "used":
		slices.SortStableFunc(images, func(a, b cache.ImageInfo) int { return b.Used.Compare(a.Used) })
	}
}

func printNames(w io.Writer, images []cache.ImageInfo) error {
	for _, img := range images {
		if _, err := fmt.Fprintln(w, img.Name()); err != nil {
			return err
		}
	}
	return nil
}

// sum prints, for people, how many images were listed, and how much the cache takes: images
// share layers, so that their sizes do not add up.
func (c *lsCommand) sum(p *invocation, client *client, listed, hidden int) error {
	if !isTerminal(p.stdout) && !p.verbose {
		return nil
	}
	var st admin.Stats
	if err := client.do(p.ctx, http.MethodGet, "stats", nil, &st); err != nil {
		return err
	}
	more := ""
	if hidden > 0 {
		more = fmt.Sprintf(" (and %d evicted, shown with --all)", hidden)
	}
	_, err := fmt.Fprintf(p.stderr, "%d images%s; the cache takes %s\n", listed, more, fill(st.Bytes, st.MaxSize))
	return err
}

// rowName is an image's name without the digest, which has its own column.
func rowName(img cache.ImageInfo) string {
	if img.Tag == "" {
		return img.Upstream + "/" + img.Repository
	}
	return img.Name()
}

func state(img cache.ImageInfo) string {
	text := "complete"
	if !img.Complete {
		text = "incomplete"
	}
	if img.Pinned {
		text += ", pinned"
	}
	if !img.Gone.IsZero() {
		text += ", gone upstream since " + img.Gone.Local().Format(time.DateTime)
	}
	return text
}

// lifecycleOf says when an image expired, and by which rule.
func lifecycleOf(img cache.ImageInfo) string {
	if img.Expired == nil {
		return nothing
	}
	rule := "rule"
	if img.Expired.Source == upkeep.SourceLocal {
		rule = "local rule"
	}
	return fmt.Sprintf("expired %s (%s %d)", age(img.Expired.Since), rule, img.Expired.Rule)
}
