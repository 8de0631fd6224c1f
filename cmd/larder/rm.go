package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/larder-registry/larder/proxy"
)

// rmCommand is "larder rm".
type rmCommand struct {
	folder
	images
}

// images are the arguments of commands that are about some images.
type images struct {
	Images []string `arg:"" name:"image" help:"<host>/<repository>:<tag>, or @<digest>. Short names are completed as Docker does."`
}

// each does the same with all of them, whether or not it works for the others.
func (i images) each(do func(image string) error) error {
	var errs error
	for _, image := range i.Images {
		errs = errors.Join(errs, do(fullName(image)))
	}
	return errs
}

// Run forgets images.
func (c *rmCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		return c.each(func(image string) error {
			var removed proxy.Removed
			err := client.do(p.ctx, http.MethodDelete, "images", imageQuery(image), &removed)
			if err == nil {
				_, err = fmt.Fprintf(p.stdout, "removed %s, %s freed\n", image, size(removed.Freed))
			}
			return err
		})
	})
}

func imageQuery(image string) url.Values { return url.Values{"image": {image}} }
