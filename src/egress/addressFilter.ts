/**
 * Which addresses may be connected to where a client named the address: those
 * of the public internet, and what the configuration allows beside them.
 */
import ipaddr from "ipaddr.js";

type Address = ipaddr.IPv4 | ipaddr.IPv6;

export interface AddressFilter {
  /** Whether the configuration allows this name, whatever its addresses are. */
  allowsHost(hostname: string): boolean;
  /** @param address an IPv4 or IPv6 address in its usual form */
  allowsAddress(address: string): boolean;
}

/** @param allow addresses, CIDR blocks and host names, as `isAllowEntry` knows them */
export function createAddressFilter(allow: readonly string[]): AddressFilter {
  const blocks = allow.map(blockOf).filter((block) => block !== undefined);
  const hosts = new Set(allow.filter((entry) => blockOf(entry) === undefined).map(plainHost));
  return {
    allowsHost: (hostname) => hosts.has(plainHost(hostname)),
    allowsAddress(text) {
      if (!ipaddr.isValid(text)) return false;
      const parsed = ipaddr.parse(text);
      return isPublic(parsed) || blocks.some((block) => isWithin(ipaddr.process(text), block));
    },
  };
}

/** Whether a text is an IP address, a CIDR block or a host name, for an allow-list. */
export function isAllowEntry(entry: string): boolean {
  if (blockOf(entry)) return true;
  // What is made of digits only is no name but an address in a form that few expect, such as 10.1 for 10.0.0.1.
  return /^(?=.{1,253}$)[\w-]+(\.[\w-]+)*\.?$/.test(entry) && !/^[\d.]+$|^0x/i.test(entry);
}

/** Whether a text is an IP address or a CIDR block. */
export function isAddressOrBlock(entry: string): boolean {
  return blockOf(entry) !== undefined;
}

function blockOf(entry: string): [Address, number] | undefined {
  if (ipaddr.IPv4.isValidFourPartDecimal(entry)) return [ipaddr.parse(entry), 32];
  if (ipaddr.IPv6.isValid(entry)) return [ipaddr.parse(entry), 128];
  if (ipaddr.IPv4.isValidCIDRFourPartDecimal(entry) || ipaddr.IPv6.isValidCIDR(entry))
    return ipaddr.parseCIDR(entry);
  return undefined;
}

function isWithin(address: Address, [block, bits]: [Address, number]): boolean {
  return address.kind() === block.kind() && address.match(block, bits);
}

/** The only block of IPv6 that is given out to the public internet. */
const PUBLIC_IPV6: [ipaddr.IPv6, number] = [ipaddr.IPv6.parse("2000::"), 3];
/** Azure's metadata and agent service, on a public address that means another machine to everyone. */
const AZURE_PLATFORM = "168.63.129.16";

/**
 * ipaddr.js knows the special registries of IANA: everything in them, metadata services at 169.254.169.254 and
 * fd00:ec2::254 included, has a name other than "unicast". IPv4 inside of IPv6 (mapped, NAT64, 6to4, Teredo) has too.
 */
function isPublic(address: Address): boolean {
  if (address.range() !== "unicast") return false;
  return address instanceof ipaddr.IPv4
    ? address.toString() !== AZURE_PLATFORM
    : isWithin(address, PUBLIC_IPV6);
}

function plainHost(hostname: string): string {
  return hostname.toLowerCase().replace(/\.$/, "");
}
