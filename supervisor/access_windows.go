package supervisor

import "example.org/upkeep/supervisor/process"

// accessWarning is not known here.
func accessWarning(*process.Cred, string, string) string { return "" }
