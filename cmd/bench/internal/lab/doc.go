// Package lab runs cases. For each case it starts every server that takes part, lets the case prepare, and gives the
// servers turns in rounds. A turn starts when the disk has written everything and the server is idle, and ends when the
// server is idle again. The lab adds to what the turn measured itself what the server used and what the upstream sent.
package lab
