/** A picture with what was found in it, drawn over as SVG in the page's own pixels. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { labelColour } from "../../annotate/labelColour.ts";
import type { Mask } from "../../imil/dictionaries.ts";
import { decodeRunLengths } from "../../imil/runLengths.ts";
import { hasBox, isDrawn, type BoxedFinding, type Found } from "../findings.ts";
import { plural } from "../format.ts";
import { placeTags } from "./tags.ts";

/** In pictures that are narrower than this the letters are smaller. */
const NARROW = 480;
/** With more boxes than this, names are shown where the pointer is only. */
const MAX_TAGS = 40;
const MAX_LABEL = 40;
const MIN_KEY_POINT_SCORE = 0.3;
/** Pairs of COCO's 17 key points (from 1) that belong together. */
const LIMBS = "1-2 1-3 2-4 3-5 6-7 6-8 8-10 7-9 9-11 6-12 7-13 12-13 12-14 14-16 13-15 15-17"
  .split(" ")
  .map((limb) => limb.split("-") as [string, string]);

interface Size {
  width: number;
  height: number;
}

export interface AnnotatedPictureProps {
  src: string;
  alt: string;
  isSmall?: boolean;
  findings: readonly Found[];
  /** Index of the finding under the pointer, here or in a list beside. */
  hovered?: number | undefined;
  onHover?: (index: number | undefined) => void;
}

export function AnnotatedPicture(props: AnnotatedPictureProps) {
  const { src, alt, isSmall = false, findings, hovered, onHover } = props;
  const image = useRef<HTMLImageElement>(null);
  const [size, setSize] = useState<Size>();
  const [isBroken, setBroken] = useState(false);
  useEffect(() => {
    setBroken(false);
    const observer = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSize(width > 0 && height > 0 ? { width, height } : undefined);
    });
    observer.observe(image.current!);
    return () => observer.disconnect();
  }, [src]);

  return (
    <div class={isSmall ? "picture is-small" : "picture"}>
      <img ref={image} src={src} alt={alt} onError={() => setBroken(true)} hidden={isBroken} />
      {isBroken && <p class="picture-missing">This browser can't show the picture.</p>}
      {size && !isBroken && <Overlay findings={findings} size={size} hovered={hovered} onHover={onHover} />}
    </div>
  );
}

function Overlay(props: {
  findings: readonly Found[];
  size: Size;
  hovered: number | undefined;
  onHover: ((index: number | undefined) => void) | undefined;
}) {
  const { findings, size, hovered, onHover } = props;
  const drawn = findings.filter(isDrawn);
  const boxed = drawn.filter(hasBox).toSorted((a, b) => b.Cs - a.Cs);
  const isCrowd = boxed.length > MAX_TAGS;
  const tagged = isCrowd ? boxed.filter(({ index }) => index === hovered) : boxed;
  // The large ones below, so that the small ones can be pointed at.
  const stacked = drawn.toSorted((a, b) => areaOf(b) - areaOf(a));
  return (
    <svg
      class={`overlay ${hovered === undefined ? "" : "has-hovered"}`}
      viewBox={`0 0 ${size.width} ${size.height}`}
      role="img"
      aria-label={`${plural(drawn.length, "finding")} drawn`}
      onPointerLeave={() => onHover?.(undefined)}
    >
      {stacked.map((finding) => (
        <g
          key={finding.index}
          class={`found ${finding.index === hovered ? "is-hovered" : ""}`}
          data-label={finding.Lb}
          onPointerEnter={() => onHover?.(finding.index)}
        >
          <title>{textOf(finding)}</title>
          <Shape finding={finding} size={size} />
        </g>
      ))}
      <Tags boxed={tagged} size={size} hovered={hovered} />
    </svg>
  );
}

function areaOf(finding: Found): number {
  return hasBox(finding) ? finding.Dm.W * finding.Dm.H : 0;
}

function Shape({ finding, size }: { finding: Found; size: Size }) {
  const colour = labelColour(finding.Lb);
  return (
    <>
      <MaskShape finding={finding} size={size} colour={colour} />
      {finding.Rb ? (
        <Outline points={pointsOf(finding.Rb.Corners.flat(), size)} colour={colour} />
      ) : (
        hasBox(finding) && <BoxShape finding={finding} size={size} colour={colour} />
      )}
      <KeyPoints finding={finding} size={size} colour={colour} />
    </>
  );
}

function BoxShape({ finding, size, colour }: { finding: BoxedFinding; size: Size; colour: string }) {
  const at = rectOf(finding, size);
  return (
    <>
      <rect class="ground" {...at} />
      <rect class="box" {...at} stroke={colour} />
    </>
  );
}

function Outline({ points, colour }: { points: string; colour: string }) {
  return (
    <>
      <polygon class="ground" points={points} />
      <polygon class="box" points={points} stroke={colour} />
    </>
  );
}

/** Its pixels, and its outlines to be pointed at; where the pixels are missing, the outlines filled. */
function MaskShape({ finding, size, colour }: { finding: Found; size: Size; colour: string }) {
  const { Poly: outlines = [], Rle: runs } = finding.Msk ?? {};
  const pixels = useMemo(() => (runs ? drawMask(runs, colour) : undefined), [runs, colour]);
  return (
    <>
      {pixels && <image class="mask" href={pixels} {...size} preserveAspectRatio="none" />}
      {outlines.map((outline, index) => (
        <polygon
          key={index}
          class={pixels ? "outline" : "outline mask"}
          points={pointsOf(outline, size)}
          fill={pixels ? "transparent" : colour}
          stroke={colour}
        />
      ))}
    </>
  );
}

/** The mask as a picture. */
function drawMask(runs: Mask["Rle"], colour: string): string {
  const { width, height, data } = decodeRunLengths(runs);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(width, height);
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
  data.forEach((isInside, at) => {
    if (isInside) image.data.set([red!, green!, blue!, 255], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

function KeyPoints({ finding: { Kp }, size, colour }: { finding: Found; size: Size; colour: string }) {
  if (!Kp) return null;
  const seen = new Map(
    Object.entries(Kp)
      .filter(([, point]) => (point[3] ?? 1) >= MIN_KEY_POINT_SCORE)
      .map(([name, [x = 0, y = 0]]) => [name, { x: x * size.width, y: y * size.height }] as const),
  );
  const limbs = Object.keys(Kp).length === 17 ? LIMBS : [];
  return (
    <>
      {limbs.map(([from, to]) => {
        const [a, b] = [seen.get(from), seen.get(to)];
        if (!a || !b) return null;
        const at = { x1: a.x, y1: a.y, x2: b.x, y2: b.y };
        return (
          <g key={`${from}-${to}`}>
            <line class="ground" {...at} />
            <line class="limb" {...at} stroke={colour} />
          </g>
        );
      })}
      {[...seen].map(([name, { x, y }]) => (
        <circle key={name} class="key-point" cx={x} cy={y} r={3} />
      ))}
    </>
  );
}

function Tags({
  boxed,
  size,
  hovered,
}: {
  boxed: readonly BoxedFinding[];
  size: Size;
  hovered: number | undefined;
}) {
  const texts = boxed.map(textOf);
  const font = size.width < NARROW ? 10 : 12;
  const rects = placeTags(
    boxed.map((finding, at) => ({
      box: rectOf(finding, size),
      width: widthOf(texts[at]!, font) + 8,
      height: font + 5,
    })),
    size.width,
    size.height,
  );
  return (
    <g class="tags" aria-hidden="true">
      {boxed.map((finding, at) => {
        const { x, y, width, height } = rects[at]!;
        return (
          <g key={finding.index} class={finding.index === hovered ? "is-hovered" : ""}>
            <rect x={x} y={y} width={width} height={height} rx={3} fill={labelColour(finding.Lb)} />
            <text x={x + 4} y={y + font} font-size={font}>
              {texts[at]}
            </text>
          </g>
        );
      })}
    </g>
  );
}

let ruler: CanvasRenderingContext2D | null = null;

function widthOf(text: string, font: number): number {
  ruler ??= document.createElement("canvas").getContext("2d");
  if (!ruler) return text.length * font * 0.6;
  ruler.font = `600 ${font}px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(text).width;
}

function rectOf({ Dm }: BoxedFinding, { width, height }: Size) {
  return { x: Dm.X * width, y: Dm.Y * height, width: Dm.W * width, height: Dm.H * height };
}

/** `[x, y, x, y, …]` as fractions → SVG's points in pixels. */
function pointsOf(outline: readonly number[], { width, height }: Size): string {
  return outline.map((at, index) => (at * (index % 2 === 0 ? width : height)).toFixed(1)).join(" ");
}

export function textOf({ Lb, Cs }: Found): string {
  const letters = Array.from(Lb);
  const label = letters.length > MAX_LABEL ? `${letters.slice(0, MAX_LABEL - 1).join("")}…` : Lb;
  return `${label} ${Cs.toFixed(2)}`;
}
