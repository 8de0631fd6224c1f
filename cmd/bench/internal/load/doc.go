// Package load is the clients of the bench: they pull images as containerd does, or send one request again and again.
package load
