package main

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/larder-registry/larder/upstream/name"
)

// images are the arguments of a command about images.
type images struct {
	JSON   bool     `name:"json" help:"Print what was done as a JSON array."`
	Images []string `arg:"" name:"image" help:"<host>/<repository>:<tag>, or @<digest>. Short names are completed as Docker does. A name with *, ? or [ is a pattern for images in the cache: see larder ls."`
}

// done is what a command did with an image.
type done struct {
	Image string `json:"image"`
	Freed *int64 `json:"freed,omitempty"` // by rm, in bytes of disk

	text string // for people
}

// run calls do for each image, also after one fails, and prints what was done. known
// returns the names among which a pattern selects.
func (i images) run(p *invocation, known func() ([]string, error), do func(image string) (done, error)) error {
	for _, image := range i.Images {
		if _, err := name.ParseImagePattern(image); name.IsImagePattern(image) && err != nil {
			return usageError{fmt.Errorf("pattern %q: %w", image, err)}
		}
	}
	all := []done{}
	err := i.each(known, func(image string) error {
		what, err := do(image)
		what.Image = image
		switch {
		case err != nil:
		case i.JSON:
			all = append(all, what)
		default:
			_, err = fmt.Fprintln(p.stdout, what.text)
		}
		return err
	})
	if i.JSON {
		err = errors.Join(err, printJSON(p.stdout, all))
	}
	return err
}

// each calls do for each image, and for each image that a pattern matches.
func (i images) each(known func() ([]string, error), do func(image string) error) error {
	var errs error
	for _, image := range i.Images {
		if !name.IsImagePattern(image) {
			full, err := name.ParseShortImage(image)
			if err != nil {
				errs = errors.Join(errs, usageError{err})
				continue
			}
			errs = errors.Join(errs, do(full.String()))
			continue
		}
		all, err := known()
		if err != nil {
			return errors.Join(errs, err)
		}
		pattern, err := name.ParseImagePattern(image)
		if err != nil {
			return errors.Join(errs, usageError{err})
		}
		var found bool
		for _, image := range all {
			if pattern.Match(image) {
				found = true
				errs = errors.Join(errs, do(image))
			}
		}
		if !found {
			errs = errors.Join(errs, fmt.Errorf("no image matches %q", image))
		}
	}
	return errs
}

func imageQuery(image string) url.Values { return url.Values{"image": {image}} }
