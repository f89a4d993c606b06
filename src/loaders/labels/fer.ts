/** The seven expressions of FER2013 in the order that models trained on it number them. */
export const ferLabels: readonly string[] = [
  "angry",
  "disgust",
  "fear",
  "happy",
  "sad",
  "surprise",
  "neutral",
];
