// Package lifecycle evaluates lifecycle policies: which images of a repository
// have expired, by rules in the JSON form of Amazon ECR and by ECR's order of
// evaluation (user guide, "Automate the cleanup of images by using lifecycle
// policies in Amazon ECR").
//
// [Parse] reads a policy that ECR stores, leniently. [ParseLocal] reads one that an
// operator wrote for the cache, strictly. [Policy.Expired] then evaluates it in two steps: the rules
// select and count images, and the relations between images (an index and its
// children, a subject and its referrers) decide which of these can be removed.
//
// The package is pure: it has no clock, does no I/O and keeps no state. Of Larder's
// packages it imports the patterns of name alone.
package lifecycle
