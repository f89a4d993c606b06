/** Whether an address or the name of a host is this machine's own, for itself alone; as a URL has it, too (`[::1]`). */
export function isLoopback(host: string): boolean {
  return /^(\[::1\]|::1)$/.test(host) || /^127(\.\d+){3}$/.test(host) || /^(.+\.)?localhost$/.test(host);
}
