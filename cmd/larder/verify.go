package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream/name"
)

// verifyCommand is "larder verify".
type verifyCommand struct {
	folder
	JSON   bool   `name:"json" help:"Print everything that is known, as JSON."`
	Denied bool   `help:"List the images that clients asked for and that the policy does not allow, the latest first: those that they did not get, and those that they got as the mode is warn."`
	Image  string `arg:"" optional:"" help:"Name of an image, by tag or digest."`
}

// errRefused is the result for an image that clients do not get.
var errRefused = errors.New("the policy does not let clients have this image")

// Help is what kong shows below the usage.
func (*verifyCommand) Help() string {
	return "Says what the policy of the configuration says about an image, condition by condition. The exit status is 1 if clients do not get the image. " +
		"Without a daemon only the configuration decides: an image is refused if an enforced rule covers it.\n\nExample:\n\n" +
		"    larder verify 123456789012.dkr.ecr.us-east-1.amazonaws.com/prod/app:v1\n" +
		"    larder verify --denied"
}

// Run says what the policy says.
func (c *verifyCommand) Run(p *invocation) error {
	switch {
	case c.Denied && c.Image != "":
		return usageError{errors.New("--denied lists all images: give no image with it")}
	case c.Denied:
		return c.listDenied(p)
	case c.Image == "":
		return usageError{errors.New("give the name of an image, or --denied")}
	}
	image, err := name.ParseShortImage(c.Image)
	if err != nil {
		return usageError{err}
	}
	cfg, _, err := settings{Config: c.Config, CacheDir: c.CacheDir}.load(p)
	if err != nil {
		return err
	}
	v, err := verify(p, cfg, image)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(p.stdout, v)
	} else {
		err = writeVerified(p.stdout, v)
	}
	if err == nil && !v.Served {
		err = errRefused
	}
	return err
}

// listDenied prints the images that the policy does not allow. Without a daemon there is nobody who asked for any.
func (c *verifyCommand) listDenied(p *invocation) error {
	return c.with(p, func(client *client) error {
		if client.alone {
			return errors.New("no daemon runs, which has the list: start it")
		}
		var all []policy.Denied
		if err := client.do(p.ctx, http.MethodGet, "policy/denied", nil, &all); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.stdout, all)
		}
		t := table{spare: "DIGEST"}
		t.add("IMAGE", "DIGEST", "RESULT", "REQUESTS", "LAST", "WHY")
		for _, d := range all {
			image := d.Host + "/" + d.Repository
			if d.Reference != d.Digest.String() {
				image += ":" + d.Reference
			}
			t.add(image, shortDigest(d.Digest), resultOf(&d.Decision), fmt.Sprint(d.Requests), age(d.Last), d.Why())
		}
		return t.write(p.stdout, terminalWidth(p.stdout))
	})
}

// verify returns what the daemon says about an image, or the configuration if no daemon runs.
func verify(p *invocation, cfg *config.Config, image name.Image) (v daemon.Verified, err error) {
	client, err := running(p, cfg)
	if errors.Is(err, daemon.ErrNotRunning) {
		rule, refused := daemon.VerifyAlone(cfg, image)
		v = daemon.Verified{Image: image.String(), Covered: rule.HasConditions(), Served: !refused}
		if v.Covered {
			fmt.Fprintf(p.stderr, "larder: no daemon runs: the configuration alone says that the rule %q, whose mode is %s, covers the image\n", rule.Match, rule.Mode)
		}
		return v, nil
	}
	if err != nil {
		return v, err
	}
	err = client.do(p.ctx, http.MethodGet, "policy/verify", url.Values{"image": {image.String()}}, &v)
	return v, err
}

// writeVerified prints what the policy says, for people.
func writeVerified(w io.Writer, v daemon.Verified) error {
	switch {
	case !v.Covered:
		_, err := fmt.Fprintf(w, "%s: no rule of the policy covers it\n", v.Image)
		return err
	case v.Decision == nil:
		return nil
	}
	d := v.Decision
	result := string(d.Result)
	if v.Served && d.Result != policy.Allowed {
		result += ", and served as the mode is warn"
	}
	_, err := fmt.Fprintf(w, "%s: %s\nrule: %s (%s)\ndigest: %s\n", v.Image, result, d.Rule, d.Mode, d.Digest)
	if d.Exempt && err == nil {
		_, err = fmt.Fprintf(w, "exempt: %s\n", d.Why())
	}
	for _, one := range d.Conditions {
		if err == nil {
			_, err = fmt.Fprintf(w, "%s: %s: %s\n", one.Condition, one.Result, one.Reason)
		}
	}
	if d.Stands != "" && err == nil {
		_, err = fmt.Fprintf(w, "decided %s, and stands since it cannot be decided again: %s\n", age(d.At), d.Stands)
	}
	return err
}
