// Package upstream is the registry that all servers of the bench fetch from: a fake ECR in a process of its own, so that
// its CPU time is not counted for any server. Serve runs in that process; Upstream controls it over HTTP from the bench.
package upstream
