package main

import "strings"

// fullName fills in what a short name of an image leaves out, as Docker does:
// busybox is docker.io/library/busybox:latest. What begins with a host is taken
// as it is, but for the tag.
func fullName(image string) string {
	host, rest, ok := strings.Cut(image, "/")
	switch {
	case !ok:
		image = "docker.io/library/" + image
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		image = "docker.io/" + image
	case host == "docker.io" && !strings.Contains(rest, "/"):
		image = "docker.io/library/" + rest
	}
	if name := image[strings.LastIndexByte(image, '/')+1:]; !strings.ContainsAny(name, ":@") {
		image += ":latest"
	}
	return image
}
