package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"example.org/upkeep/builder/sandbox"
)

// errWorkFull ends a build whose folder grows over its limit.
var errWorkFull = errors.New("needed more disk space than allowed")

// errDiskLow ends a build that leaves too little of the disk: what it downloads
// is in no folder of its own.
var errDiskLow = errors.New("the disk is nearly full")

// runGo runs a command of the build and watches the size of its folder and the
// free space of the disk.
func (b *build) runGo(ctx context.Context, job sandbox.Job) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		folder, disk := time.NewTicker(time.Second), time.NewTicker(100*time.Millisecond)
		defer folder.Stop()
		defer disk.Stop()
		for {
			select {
			case <-done:
				return
			case <-folder.C:
				if fullness(b.dir) > int64(b.s.cfg.MaxWork)<<20 {
					cancel(errWorkFull)
					return
				}
			case <-disk.C:
				// The other half is for what is being written meanwhile, and for the log.
				if low, err := b.s.diskLow(int64(b.s.cfg.DiskFree) << 20 / 2); low && err == nil {
					cancel(errDiskLow)
					return
				}
			}
		}
	}()
	job.CPU = func(d time.Duration) { b.cpu += d }
	err := b.s.sb.Run(ctx, job)
	close(done)
	<-watched
	return err
}

// sizeOf returns how many bytes the files in a folder have.
func sizeOf(dir string) int64 {
	size, _ := contents(dir)
	return size
}

// fullness is what a folder takes of the disk: empty files and folders do too.
func fullness(dir string) int64 {
	size, entries := contents(dir)
	return size + int64(entries)*entrySize
}

// entrySize is about what a file or folder takes besides its bytes.
const entrySize = 4096

func contents(dir string) (size int64, entries int) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil // files come and go meanwhile
		}
		entries++
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			size += fi.Size()
		}
		return nil
	})
	return size, entries
}
