// initrd is the program /init of the nodes' initial RAM disk: it loads the modules that are there, mounts the root that the
// kernel's command line names, and becomes its /sbin/init. The usual initrd starts udev and a few dozen shells for that, which
// takes an emulated machine ten seconds.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	finitModule    = 313 // syscall number on amd64
	compressedFile = 4   // MODULE_INIT_COMPRESSED_FILE: the kernel unpacks it
	patience       = 30 * time.Second
)

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	noParameters := []byte{0}
	_, _, errno := syscall.Syscall(finitModule, file.Fd(), uintptr(unsafe.Pointer(&noParameters[0])), compressedFile)
	if errno != 0 && errno != syscall.EEXIST {
		return fmt.Errorf("loading %s: %w", path, errno)
	}
	return nil
}

// rootDevice is what the kernel's command line says after root=.
func rootDevice() (string, error) {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return "", fmt.Errorf("mounting /proc: %w", err)
	}
	defer syscall.Unmount("/proc", 0)
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(string(line)) {
		if device, found := strings.CutPrefix(word, "root="); found {
			return device, nil
		}
	}
	return "", errors.New("the kernel's command line has no root=")
}

// mountRoot waits for the device: a driver may find it a moment after its module was loaded.
func mountRoot(device string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Mount(device, "/root", "ext4", syscall.MS_NOATIME, "")
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("mounting %s: %w", device, err)
		}
	}
}

func enter() error {
	if err := syscall.Mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /dev: %w", err)
	}
	modules, _ := filepath.Glob("/modules/*")
	for _, module := range modules {
		if err := loadModule(module); err != nil {
			return err
		}
	}
	device, err := rootDevice()
	if err != nil {
		return err
	}
	if err := mountRoot(device); err != nil {
		return err
	}
	if err := syscall.Mount("/dev", "/root/dev", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving /dev: %w", err)
	}
	os.RemoveAll("/modules") // a RAM disk's files are memory
	os.Remove("/init")
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	os.Args[0] = "/sbin/init"
	return syscall.Exec("/sbin/init", os.Args, os.Environ())
}

func main() {
	fmt.Fprintln(os.Stderr, "initrd:", enter()) // comes back only if it failed; the kernel then panics
	os.Exit(1)
}
