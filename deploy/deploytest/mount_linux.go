package deploytest

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Tmpfs mounts an empty file system with these options (tmpfs(5)), and returns its folder. It is unmounted after the end of
// all processes that the test starts later. Without the right to mount the test is skipped.
func Tmpfs(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, options)
	return dir
}

// ReadOnly makes a folder one of a read-only file system, until back is called or the test ends. Files that are open stay
// writable. Without the right to mount the test is skipped.
func ReadOnly(t *testing.T, dir string) (back func()) {
	t.Helper()
	// The kernel refuses to make a file system itself read-only while files of it are open for writing.
	back = mount(t, dir, dir, "", unix.MS_BIND, "")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(&os.PathError{Op: "make read-only", Path: dir, Err: err})
	}
	return back
}

// Cover shows one file in the place of another, until back is called or the test ends. Without the right to mount the test
// is skipped.
func Cover(t *testing.T, file, with string) (back func()) {
	t.Helper()
	return mount(t, with, file, "", unix.MS_BIND, "")
}

func mount(t *testing.T, source, target, kind string, flags uintptr, options string) (unmount func()) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		Miss(t, "mount", "mounting needs root, with CAP_SYS_ADMIN: "+err.Error())
	}
	unmount = sync.OnceFunc(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(&os.PathError{Op: "unmount", Path: target, Err: err})
		}
	})
	t.Cleanup(unmount)
	return unmount
}
