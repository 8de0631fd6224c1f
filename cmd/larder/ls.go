package main

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/upstream/name"
)

// lsCommand is "larder ls".
type lsCommand struct {
	folder
	Expired bool   `help:"Only images that a lifecycle rule has expired."`
	JSON    bool   `name:"json" help:"Print everything that is known about each image, as a JSON array."`
	Pattern string `arg:"" optional:"" help:"Only images whose whole name matches. The name is <host>/<repository>:<tag>, or @<digest> for an image without a tag. * stands for any text, slashes too; ? for one character; [a-z] for one of these."`
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
		images = slices.DeleteFunc(images, func(img cache.ImageInfo) bool {
			return !pattern.Match(img.Name()) || c.Expired && img.Expired == nil
		})
		if c.JSON {
			return printJSON(p.stdout, images)
		}
		t := table{spare: "DIGEST"}
		t.add("IMAGE", "DIGEST", "SIZE", "USED", "STATE", "LIFECYCLE")
		for _, img := range images {
			t.add(rowName(img), shortDigest(img.Digest), size(img.Bytes), age(img.Used), state(img), lifecycleOf(img))
		}
		return t.write(p.stdout, terminalWidth(p.stdout))
	})
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
