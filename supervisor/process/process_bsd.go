//go:build unix && !linux && !darwin

package process

const maxRSSUnit = 1024

func startTime(int) (uint64, error) { return 0, errUnknown }
