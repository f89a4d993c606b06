/** The 80 classes of COCO in the order that YOLO models number them. */
export const cocoLabels: readonly string[] = [
  "person",
  "bicycle",
  "car",
  "motorcycle",
  "airplane",
  "bus",
  "train",
  "truck",
  "boat",
  "traffic light",
  "fire hydrant",
  "stop sign",
  "parking meter",
  "bench",
  "bird",
  "cat",
  "dog",
  "horse",
  "sheep",
  "cow",
  "elephant",
  "bear",
  "zebra",
  "giraffe",
  "backpack",
  "umbrella",
  "handbag",
  "tie",
  "suitcase",
  "frisbee",
  "skis",
  "snowboard",
  "sports ball",
  "kite",
  "baseball bat",
  "baseball glove",
  "skateboard",
  "surfboard",
  "tennis racket",
  "bottle",
  "wine glass",
  "cup",
  "fork",
  "knife",
  "spoon",
  "bowl",
  "banana",
  "apple",
  "sandwich",
  "orange",
  "broccoli",
  "carrot",
  "hot dog",
  "pizza",
  "donut",
  "cake",
  "chair",
  "couch",
  "potted plant",
  "bed",
  "dining table",
  "toilet",
  "tv",
  "laptop",
  "mouse",
  "remote",
  "keyboard",
  "cell phone",
  "microwave",
  "oven",
  "toaster",
  "sink",
  "refrigerator",
  "book",
  "clock",
  "vase",
  "scissors",
  "teddy bear",
  "hair drier",
  "toothbrush",
];

/** What torchvision calls the numbers that are no class: 0, and the ten that COCO never used. */
export const BACKGROUND = "__background__";
export const UNUSED = "N/A";
const UNUSED_NUMBERS = new Set([12, 26, 29, 30, 45, 66, 68, 69, 71, 83]);

/** The same classes by COCO's own numbers, from 1 to 90, as torchvision's detectors have them. */
export const coco91Labels: readonly string[] = numberAsCoco(cocoLabels);

function numberAsCoco(labels: readonly string[]): string[] {
  const numbered = [BACKGROUND];
  for (const label of labels) {
    while (UNUSED_NUMBERS.has(numbered.length)) numbered.push(UNUSED);
    numbered.push(label);
  }
  return numbered;
}
